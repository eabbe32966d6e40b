"""The base of this project's errors, and the error about data. `facenb.errors` adds the others."""


class FacenbError(Exception):
    """Base of the errors that this project raises on bad input."""


class AssetError(FacenbError):
    """A data set or model is missing, damaged, or could not be fetched or unpacked."""
