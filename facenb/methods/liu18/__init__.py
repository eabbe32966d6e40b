"""Liu et al. 2018 put together: what notebooks 06 to 09 share. `recognition` is imported by its own name.

A name's module is loaded when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facenb.methods.liu18.material import Material, mean_coefficients, paper_fitter, prepare, training_folder
    from facenb.methods.liu18.measures import (
        TOGETHER,
        TestErrors,
        encode,
        encode_crops,
        measure,
        measure_model,
        measure_network,
        need_network,
        shapes,
    )
    from facenb.methods.liu18.phases import Coefficients, phase_one, phase_three, phase_two, reconstruction_loss
    from facenb.methods.liu18.plans import plan

MODULES = ("plans", "phases", "measures", "material")  # from the lightest to the heaviest


def __getattr__(name: str) -> Any:
    for module in () if name.startswith("_") else MODULES:
        content = vars(import_module(f"{__name__}.{module}"))
        if name in content:
            return content[name]
    raise AttributeError(f"module {__name__} has no attribute {name}")
