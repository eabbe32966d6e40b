"""Where a data set or a released model lies on this machine."""

from pathlib import Path

from data_download.entries import load_entry
from data_download.install import install, is_ready, marker, mirror_folder, ready_folder


def asset(name: str) -> Path:
    """The asset's folder, ready to read; taken from the mirror folder (FACENB_MIRROR) where it has it, never the web.

    Raises AssetError: an unknown name, a damaged mirror, or an asset that is not here, with the command that gets it.
    """
    entry = load_entry(name)
    if is_ready(entry) or entry.needs_registration:
        return ready_folder(entry)
    mirror = mirror_folder()
    for source in entry.sources:
        if mirror and source.is_mirror and (mirror / source.base.removeprefix("mirror:")).is_dir():
            return install(entry, quiet=True)
    return ready_folder(entry)


def checksum(name: str) -> str:
    """What tells this copy of an asset from any other: its manifest's sha256. Raises AssetError if it is absent."""
    asset(name)
    found = marker(load_entry(name))
    return "" if found is None else found["manifest"]
