"""Jupyter kernels forked from one process that has the packages imported already: imports are paid once a run."""

import atexit
import os
import signal
import sys
import tempfile
import uuid
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import Popen
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Unicode, default

from taxi.processes import FORKING, import_before_forking, own_sockets

WARM = (
    "ipykernel.kernelapp",
    "matplotlib.backends.backend_agg",
    "taxi.training.promotion",
    "taxi.reporting.feature_tables",
    "taxi.monitoring.monitor",
)


# not matplotlib.pyplot: imported inside a kernel, it arranges there that figures show themselves
def warm_up(*more: str) -> None:
    """Start the process that kernels are forked from, and return at once; it imports ``WARM`` and ``more`` modules meanwhile."""
    import_before_forking(*WARM, *more)


def _run_kernel(connection_file: str, folder: str, environment: dict[str, str]) -> None:
    import matplotlib as mpl
    import pandas as pd
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()  # Ctrl-C at the terminal is the run's affair, not the kernel's
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    mpl.use("module://matplotlib_inline.backend_inline")  # what both would set by themselves if imported in a kernel
    pd.set_option("display.max_columns", 20)
    IPKernelApp.launch_instance(argv=["-f", connection_file, f"--IPKernelApp.parent_handle={os.getppid()}"])


class ForkedKernel:
    """A forked kernel's process, as far as Jupyter uses ``subprocess.Popen``."""

    stdin = stdout = stderr = None

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        process.start()
        self.pid: int = process.pid  # type: ignore[assignment]
        atexit.register(self.kill)

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """Wait for the end and return the exit status."""
        self._process.join()
        atexit.unregister(self.kill)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class ForkedProvisioner(LocalProvisioner):
    """Launches kernels by forking."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Fork a kernel that listens where the connection file says."""
        warm_up()
        self.cwd = str(kwargs.get("cwd") or Path.cwd())
        given = cmd[cmd.index("-f") + 1], self.cwd, dict(kwargs["env"])
        kernel = ForkedKernel(FORKING.Process(target=_run_kernel, args=given))
        self.process, self.pid = cast("Popen[bytes]", kernel), kernel.pid
        return self.connection_info


class ForkedKernelManager(AsyncKernelManager):
    """Forks its kernels, and talks with them over files of this machine only, not over TCP."""

    transport = Unicode("ipc", config=True)

    @property
    def kernel_spec(self) -> KernelSpec:
        """What Jupyter would start; ours are forked whatever is installed here, and whatever a notebook calls its kernel."""
        return KernelSpec(argv=[sys.executable, "-f", "{connection_file}"], display_name="Python 3", language="python")

    @default("ip")
    def _own_sockets(self) -> str:
        """Return where the sockets begin: by default the working folder, where two runs at once would take the same ones."""
        self._folder = tempfile.TemporaryDirectory(prefix=own_sockets())
        return str(Path(self._folder.name) / "kernel")

    async def _async_pre_start_kernel(self, **kw: Any) -> tuple[list[str], dict[str, Any]]:
        if self.provisioner is None:
            self.kernel_id = self.kernel_id or str(uuid.uuid4())
            self.provisioner = ForkedProvisioner(kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self)
        return await super()._async_pre_start_kernel(**kw)

    pre_start_kernel = _async_pre_start_kernel
