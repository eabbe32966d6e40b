"""The method of Luo et al. 2019, for notebook 10. The paper's equations are not public; ours are after its abstract."""

from facenb.methods.luo19.effects import LARGE_YAW, METRICS, nme_falls, ratio, ratio_more, spread, spread_less
from facenb.methods.luo19.measures import IdentityTest, LandmarkTest, Measured, predict
from facenb.methods.luo19.network import Siamese
from facenb.methods.luo19.plans import plan
from facenb.methods.luo19.targets import PairMaterial, prepare
from facenb.methods.luo19.trainings import CHOICE, Sweep, arms, new_network, pair_loss, train_arm, train_start
