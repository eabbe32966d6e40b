"""Errors written for the person who has to act: what was wrong, where, and what to do."""


class FacenbError(Exception):
    """Base of the errors this library raises on bad input."""


class ModelFileError(FacenbError):
    """A model file is missing, truncated, of another kind, or tries to run code."""


class ImageError(FacenbError):
    """A file is no readable image, or the image holds no usable face."""


class LandmarkError(FacenbError):
    """Landmarks are of the wrong count, not finite, or all alike."""


class AssetError(FacenbError):
    """A data set or model is missing, damaged, or could not be fetched or unpacked."""


class RunError(FacenbError):
    """A run folder, a parameter or a notebook cannot be used as asked."""
