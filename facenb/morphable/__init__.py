"""What a face is: morphable models, their file formats, coefficient layouts, and SynthFace."""

from facenb.morphable.model import Embedding, Joints, MorphableModel
