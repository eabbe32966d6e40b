"""Liu et al. 2018 put together: what notebooks 06 to 09 share. `recognition` is imported by its own name.

Each name is imported from its module when it is first used, so that `import liu18` loads nothing else.
"""

from importlib import import_module
from typing import Any

NAMES = {
    "material": ("Material", "mean_coefficients", "paper_fitter", "prepare", "training_folder"),
    "measures": (
        "TOGETHER",
        "TestErrors",
        "encode",
        "encode_pairs",
        "measure",
        "measure_model",
        "measure_network",
        "need_network",
        "shapes",
    ),
    "phases": ("CodesOnly", "phase_one", "phase_three", "phase_two", "reconstruction_loss"),
    "plans": ("plan",),
}
__all__ = sorted(name for names in NAMES.values() for name in names)


def __getattr__(name: str) -> Any:
    """Return a name of NAMES."""
    for module, names in NAMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
