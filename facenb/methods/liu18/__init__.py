"""Liu et al. 2018 put together: what notebooks 06 to 09 share. `recognition` is imported by its own name."""

from facenb.methods.liu18.material import Material, mean_coefficients, paper_fitter, prepare, training_folder
from facenb.methods.liu18.measures import (
    TOGETHER,
    TestErrors,
    encode,
    encode_pairs,
    measure,
    measure_model,
    measure_network,
    need_network,
    shapes,
)  # fmt: skip
from facenb.methods.liu18.phases import CodesOnly, Supervision, phase_one, phase_three, phase_two, reconstruction_loss
from facenb.methods.liu18.plan import LAMBDA_R, Plan, plan

__all__ = [
    "CodesOnly", "LAMBDA_R", "Material", "Plan", "Supervision", "TOGETHER", "TestErrors", "encode", "encode_pairs",
    "mean_coefficients", "measure", "measure_model", "measure_network", "need_network", "paper_fitter", "phase_one",
    "phase_three", "phase_two", "plan", "prepare", "reconstruction_loss", "shapes", "training_folder",
]  # fmt: skip
