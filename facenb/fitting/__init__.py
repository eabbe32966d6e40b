"""Fit a morphable model to landmarks of one image, or of many images of one subject (Liu et al. 2018, section 3.3)."""

from facenb.fitting.fitter import Fit, fit
from facenb.fitting.pose import scaled_orthographic
