"""The method of Liu et al. 2018, shared by notebooks 06 to 09. Import `recognition` from its own module."""

from facenb.methods.liu18.material import Material, mean_coefficients, paper_fitter, prepare, training_folder
from facenb.methods.liu18.measures import (
    TestErrors,
    encode,
    encode_crops,
    fitted_shapes,
    gap_closed,
    mean_face,
    measure,
    measure_model,
    measure_network,
    need_network,
    phase_network,
    reference_network,
    shapes,
    watch_codes,
)
from facenb.methods.liu18.phases import Coefficients, phase_one, phase_three, phase_two, reconstruction_loss
from facenb.methods.liu18.photo import synthetic_network
from facenb.methods.liu18.plans import plan
from facenb.methods.liu18.trainings import train_phase_one, train_phase_three, train_phase_two
