"""Losses: one short pure function per equation, one module per paper. Import DECA's from `facenb.losses.deca`."""

from facenb.losses.liu18 import coefficient_loss, joint_loss, shape_loss
from facenb.losses.luo19 import contrastive_loss, feature_identity_loss, vdc, wpdc
from facenb.losses.rana import coefficient_spread, distillation_loss, effect_loss
