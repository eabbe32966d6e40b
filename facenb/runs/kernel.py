"""The kernel of an unattended run: this Python, and private sockets."""

import os
import sys
import tempfile

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec

from data_download.folders import environment_folder

COMMAND = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


class PrivateKernel(AsyncKernelManager):
    """A kernel whose sockets lie in a temporary folder of its own.

    Kernels that start at the same time over TCP sometimes choose the same port. Files cannot collide in this way.
    """

    kernel_spec = KernelSpec(argv=COMMAND, display_name="Python 3", language="python")

    def __init__(self, **keywords):
        super().__init__(**keywords)
        # The path of a socket must stay below about 100 characters. A long TMPDIR would exceed this.
        short = None if len(tempfile.gettempdir()) < 60 else "/tmp"
        self.sockets = tempfile.TemporaryDirectory(prefix="facenb-", dir=short, ignore_cleanup_errors=True)
        self.connection_file = f"{self.sockets.name}/kernel.json"
        self.transport, self.ip = "ipc", f"{self.sockets.name}/s"

    async def _async_pre_start_kernel(self, **keywords):
        # The run's parameters hold here, so the variables that replace them under nbval are left out.
        names = [name for name in os.environ if name not in ("FACENB_PROFILE", "FACENB_RUNS")]
        environment_folder("FACENB_DATA")  # absolute from here on: the kernel works in another folder
        environment_folder("FACENB_MIRROR")
        keywords["env"] = {name: os.environ[name] for name in names} | {"FACENB_HEADLESS": "1"}
        return await super()._async_pre_start_kernel(**keywords)

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart)
        self.sockets.cleanup()
