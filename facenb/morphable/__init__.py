"""What a face is: morphable models, their file formats, coefficient layouts, alignment and meshes."""

from facenb.morphable.model import Embedding, Joints, MorphableModel
