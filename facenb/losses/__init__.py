"""One short pure function per equation, a module per paper."""

from facenb.losses.deca import (
    eye_closure_loss,
    identity_loss,
    landmark_loss,
    local_photometric_loss,
    parts_loss,
    photometric_loss,
    prior_loss,
    regularisation_loss,
    symmetry_loss,
)
from facenb.losses.liu18 import coefficient_loss, joint_loss, shape_loss
from facenb.losses.luo19 import contrastive_loss, feature_identity_loss, vdc, wpdc
from facenb.losses.rana import coefficient_spread, distillation_loss, effect_loss

__all__ = [
    "coefficient_loss", "coefficient_spread", "contrastive_loss", "distillation_loss", "effect_loss",
    "eye_closure_loss", "feature_identity_loss", "identity_loss", "joint_loss", "landmark_loss",
    "local_photometric_loss", "parts_loss", "photometric_loss", "prior_loss", "regularisation_loss", "shape_loss",
    "symmetry_loss", "vdc", "wpdc",
]  # fmt: skip
