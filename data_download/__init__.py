"""Every data set and model that the course can use: where it is, its terms, its checksum, and how to get it.

One file in `assets/` describes each of them. `python -m data_download list` shows them.
"""


class FacenbError(Exception):
    """Base of the errors that this project raises on bad input."""


class AssetError(FacenbError):
    """A data set or model is missing, damaged, or could not be fetched or unpacked."""
