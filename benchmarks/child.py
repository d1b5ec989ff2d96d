"""One measurement, one child process: seconds of the work alone, and the process's peak memory.

A process begins with its parent's size as its peak, as ``resource`` tells it, even through ``exec``: so the children are forked
from a server that holds nothing, not from the process that measures.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of one unit of ru_maxrss


@dataclass(frozen=True)
class Measured:
    """Seconds of one call by the clock and of all its threads, peak memory (MB) before it (imports) and after it, and its result."""

    seconds: float
    cpu_seconds: float
    base_mb: float
    peak_mb: float
    result: Any

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers alone."""
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "base_mb": self.base_mb,
            "peak_mb": self.peak_mb,
        }


def peak_mb(who: int = resource.RUSAGE_SELF) -> float:
    """Return the largest memory this process (or, of ``RUSAGE_CHILDREN``, one that has ended) has held, in MB (10^6 bytes)."""
    return resource.getrusage(who).ru_maxrss * UNIT / 1e6


def _run(channel: Connection, call: Callable[..., Any], arguments: dict[str, Any]) -> None:
    base, begun, worked = peak_mb(), time.perf_counter(), time.process_time()
    result = call(**arguments)
    took, cpu = time.perf_counter() - begun, time.process_time() - worked
    channel.send(Measured(took, cpu, base, peak_mb(), result))


def measure_apart(call: Callable[..., Any], **arguments: Any) -> Measured:
    """Call a module's function in a fresh process and measure it; raise RuntimeError if the process fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, call, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        process.join()
        raise RuntimeError(
            f"expected {call.__name__} to end well; its process ended with {process.exitcode}"
        ) from error
    finally:
        process.join()
