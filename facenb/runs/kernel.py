"""The kernel of an unattended run: this Python, private sockets, and no process left behind."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec

from data_download.folders import environment_folder

COMMAND = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


@contextmanager
def private_kernel() -> Iterator[type[AsyncKernelManager]]:
    """Yield a class of kernels whose sockets lie in a temporary folder. At the end, end its kernels, delete the folder.

    Kernels that start at the same time over TCP sometimes choose the same port. Files cannot collide in this way.
    """
    groups = []
    # The path of a socket must stay below about 100 characters. A long TMPDIR would exceed this.
    short = None if len(tempfile.gettempdir()) < 60 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="facenb-", dir=short, ignore_cleanup_errors=True) as folder:

        class Kernel(AsyncKernelManager):
            kernel_spec = KernelSpec(argv=COMMAND, display_name="Python 3", language="python")

            def __init__(self, **keywords):
                super().__init__(**keywords)
                self.connection_file = str(Path(folder) / "kernel.json")
                self.transport, self.ip = "ipc", str(Path(folder) / "s")

            async def _async_pre_start_kernel(self, **keywords):
                # The run's parameters hold here, so the variables that replace them under nbval are left out.
                names = [name for name in os.environ if name not in ("FACENB_PROFILE", "FACENB_RUNS")]
                environment_folder("FACENB_DATA")  # absolute from here on: the kernel works in another folder
                environment_folder("FACENB_MIRROR")
                keywords["env"] = {name: os.environ[name] for name in names} | {"FACENB_HEADLESS": "1"}
                return await super()._async_pre_start_kernel(**keywords)

            async def _async_launch_kernel(self, kernel_cmd, **keywords):
                await super()._async_launch_kernel(kernel_cmd, **keywords)
                groups.append(self.provisioner.pgid)

        try:
            yield Kernel
        finally:
            for group in groups:
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
