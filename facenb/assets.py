"""Find the folder of a data set or a released model on this machine."""

from pathlib import Path

from data_download.entries import load_entry
from data_download.install import install, ready_folder, usable_sources


def asset(name: str) -> Path:
    """Return the asset's folder. Take it from the mirror folder (FACENB_MIRROR) if it is there, never from the web.

    Raise AssetError for an unknown name, a damaged mirror, or a missing asset (with the command that gets it).
    """
    entry = load_entry(name)
    return install(entry) if any(source.is_mirror for source in usable_sources(entry)) else ready_folder(entry)
