"""Training: settings, one plain loop, and checkpoints that survive if the process is killed."""

from facenb.training.checkpoint import training_name
from facenb.training.feed import Data
from facenb.training.launch import Stopped
from facenb.training.logbook import History, Progress, TensorBoard, read_log
from facenb.training.loop import train
from facenb.training.settings import Settings
