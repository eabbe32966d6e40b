"""Training: settings, one plain loop, checkpoints that outlive a kill."""

from facenb.training.checkpoint import latest_checkpoint
from facenb.training.feed import Data
from facenb.training.launch import Stopped
from facenb.training.logbook import History, Progress, read_log
from facenb.training.loop import train
from facenb.training.naming import training_name
from facenb.training.settings import Settings

__all__ = [
    "Data", "History", "Progress", "Settings", "Stopped", "latest_checkpoint", "read_log", "train", "training_name",
]  # fmt: skip
