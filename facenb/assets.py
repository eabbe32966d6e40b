"""Where a data set or a released model lies on this machine."""

from pathlib import Path

from data_download.entries import load_entry
from data_download.install import install, mirror_source, ready_folder


def asset(name: str) -> Path:
    """Return the asset's folder. Take it from the mirror folder (FACENB_MIRROR) if it is there, never from the web.

    Raise AssetError for an unknown name, a damaged mirror, or an asset that is not here, with the command that gets it.
    """
    entry = load_entry(name)
    return install(entry, quiet=True) if mirror_source(entry) else ready_folder(entry)
