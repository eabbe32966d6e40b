"""Errors for the user. Each message says what is wrong, where, and what to do."""

from data_download import AssetError, FacenbError

__all__ = ["AssetError", "FacenbError", "ImageError", "LandmarkError", "ModelFileError", "RunError"]


class ModelFileError(FacenbError):
    """A model file is missing, truncated, of another kind, or tries to run code."""


class ImageError(FacenbError):
    """A file is not a readable image, or the image holds no usable face."""


class LandmarkError(FacenbError):
    """Landmarks have the wrong number, are not finite, or are all equal."""


class RunError(FacenbError):
    """A run folder, a parameter or a notebook cannot be used."""
