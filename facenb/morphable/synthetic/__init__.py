"""SynthFace, the embedded default: a population of procedural heads, and the linear model built from it."""

from facenb.morphable.synthetic.build import build_model, load_or_build, residual_by_components
from facenb.morphable.synthetic.person import DATA, MODEL, Subject, SynthFace

__all__ = ["DATA", "MODEL", "Subject", "SynthFace", "build_model", "load_or_build", "residual_by_components"]
