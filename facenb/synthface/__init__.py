"""SynthFace, the default people: MakeHuman's heads with skin, hair and wrinkles, their photographs and scans."""

from facenb.synthface.model import build_model, course_model, residual_by_components, with_jaw
from facenb.synthface.people import SUBJECTS, Subject, SynthFace
