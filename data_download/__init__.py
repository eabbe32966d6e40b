"""Every data set and model the course can use: where it is, on what terms, its checksum, and how to get it.

`python -m data_download list` shows them; each is one file in `assets/`.
"""

from data_download.entries import Entry, load_entries, load_entry
from data_download.install import install, is_ready, ready_folder, verify

__all__ = ["Entry", "install", "is_ready", "load_entries", "load_entry", "ready_folder", "verify"]
