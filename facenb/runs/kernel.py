"""Kernels for unattended runs: each with private sockets, none left behind, their memory watched."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from jupyter_client import AsyncKernelManager


class Kernel(AsyncKernelManager):
    """A kernel of this very Python that talks through sockets in a folder of its own.

    Kernels that start at the same time over TCP now and then pick the same port; files cannot collide so.
    """

    folder: Path
    started: list[psutil.Process]

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.connection_file = str(self.folder / "kernel.json")
        if os.name == "posix":
            self.transport, self.ip = "ipc", str(self.folder / "s")

    def format_kernel_cmd(self, extra_arguments=None):
        command = super().format_kernel_cmd(extra_arguments)
        is_python = "ipykernel_launcher" in " ".join(command)
        return [sys.executable, *command[1:]] if is_python else command

    async def _async_pre_start_kernel(self, **keywords):
        # Parameters rule here: the variables that stand in for them under nbval would overrule them.
        # Live views leave their picture only: nobody is there to turn them.
        own = {name: value for name, value in os.environ.items() if name not in ("FACENB_PROFILE", "FACENB_RUNS")}
        keywords["env"] = own | {"FACENB_HEADLESS": "1"}
        return await super()._async_pre_start_kernel(**keywords)

    async def _async_launch_kernel(self, kernel_cmd, **keywords):
        await super()._async_launch_kernel(kernel_cmd, **keywords)
        self.started.append(psutil.Process(self.provisioner.pid))


@contextmanager
def private_kernel() -> Iterator[type[Kernel]]:
    """A kernel class with a socket folder of its own; on leaving, its kernels and the folder are gone."""
    # A socket's path must stay under about 100 characters, which a long TMPDIR exceeds.
    base = None if len(tempfile.gettempdir()) < 60 or os.name != "posix" else "/tmp"
    with tempfile.TemporaryDirectory(prefix="facenb-", dir=base, ignore_cleanup_errors=True) as name:
        kind = type("PrivateKernel", (Kernel,), {"folder": Path(name), "started": []})
        try:
            yield kind
        finally:
            for process in family(kind.started):
                with suppress(psutil.Error):
                    process.kill()


def family(processes: list[psutil.Process]) -> list[psutil.Process]:
    """These processes and all their descendants, those that are left."""
    found = []
    for process in list(processes):
        with suppress(psutil.Error):
            found += [*process.children(recursive=True), process]
    return found


class PeakMemory(threading.Thread):
    """Watches the resident memory of a kernel and its descendants, ten times a second."""

    def __init__(self, kernels: list[psutil.Process]):
        super().__init__(daemon=True)
        self.kernels, self.peak, self.done = kernels, 0, threading.Event()

    def run(self):
        while not self.done.wait(0.1):
            total = 0
            for process in family(self.kernels):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            self.peak = max(self.peak, total)
