"""The process that kernels are forked from: one thread, nothing left in the environment; and each kernel's own sockets."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tenacity import retry, stop_after_delay, wait_fixed

from taxi.processes import ONE_THREAD, warm_processes
from taxi.runs.kernels import ForkedKernelManager, warm_up


def threads_of_a_warm_process() -> int:
    """Warm up in a process of one's own (another test's may be warm with other modules); return its threads."""
    warm_up()
    (warm,) = warm_processes()

    @retry(stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True)
    def imported() -> None:
        maps = " ".join(one.path for one in warm.memory_maps())
        assert all(part in maps for part in ("libarrow", "openblas", "libxgboost", "zmq"))
        assert warm.status() == "sleeping"

    imported()
    return warm.num_threads()


@pytest.mark.slow
def test_the_process_that_kernels_are_forked_from_has_one_thread_when_its_imports_are_done() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        assert apart.submit(threads_of_a_warm_process).result() == 1


def test_warming_up_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    before: dict[str, Any] = dict(os.environ)

    warm_up()

    assert dict(os.environ) == before
    assert set(ONE_THREAD) - set(before) == {"JE_ARROW_MALLOC_CONF"}


def test_two_kernels_never_share_a_socket() -> None:
    first, second = ForkedKernelManager(), ForkedKernelManager()

    assert first.ip != second.ip
    assert Path(first.ip).is_absolute()
