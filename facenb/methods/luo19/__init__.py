"""The method of Luo et al. 2019, for notebook 10. The paper's equations are not public; ours are after its abstract."""

from facenb.methods.luo19.effects import (
    FALLS,
    LARGE_YAW,
    METRICS,
    nme_falls,
    ratio,
    ratio_more,
    spread,
    spread_less,
)
from facenb.methods.luo19.measures import IdentityTest, LandmarkTest, Measured, judge, predict
from facenb.methods.luo19.network import Siamese
from facenb.methods.luo19.plans import Plan, plan
from facenb.methods.luo19.sweep import Sweep
from facenb.methods.luo19.targets import PairMaterial, Reduction, prepare
from facenb.methods.luo19.trainings import CHOICE, arms, new_network, pair_loss, train_arm, train_start
