"""One short pure function per equation, a module per paper."""

from facenb.losses.liu18 import coefficient_loss, joint_loss, shape_loss

__all__ = ["coefficient_loss", "joint_loss", "shape_loss"]
