"""The training of each phase. Notebooks 06 to 08 and the command use the same settings and folders.

Each function trains a network in place and returns the history. `reports` are the arguments `validate` and `watch` of
`train`. `suffix` is the network's key in `recognition.materials`.
"""

from typing import Any

from facenb.methods.liu18.material import Material, training_folder
from facenb.methods.liu18.phases import Coefficients, phase_one, phase_three, phase_two
from facenb.networks.joint import JointNetwork
from facenb.training import History, train


def train_phase_one(material: Material, network: JointNetwork, suffix: str = "", **reports: Any) -> History:
    """Train the encoder of a new network (`Material.new_network`) to predict the codes of the fitted coefficients."""
    run, settings = material.run, material.plan.one
    folder = training_folder(material, f"06_phase_one_encoder{suffix}", settings)
    return train({"network": network}, phase_one, material.train, settings, folder, device=run.device, **reports)


def train_phase_two(material: Material, network: JointNetwork, suffix: str = "", **reports: Any) -> History:
    """Train the decoders of a network of phase I to map codes of the fitted coefficients to displacements."""
    run, settings = material.run, material.plan.two
    # The name of the folder depends on the encoder, so another encoder gives another training.
    folder = training_folder(material, f"07_phase_two_decoders{suffix}", settings, {"encoder": network.encoder})
    modules, data = {"network": network, "targets": material.supervision()}, Coefficients.of(material.train)
    return train(modules, phase_two, data, settings, folder, device=run.device, **reports)


def train_phase_three(
    material: Material,
    network: JointNetwork,
    suffix: str = "",
    head: tuple[str, dict[str, Any]] | None = None,
    **reports: Any,
) -> History:
    """Train a whole network of phase II with a new class head. `head` is its name and options (None: the plan's)."""
    run, settings, (name, options) = material.run, material.plan.three, head or material.plan.head
    classifier = material.new_head(run.seed, name, options)
    modules = {"network": network, "head": classifier, "targets": material.supervision()}
    modules = {key: module.to(run.device) for key, module in modules.items()}
    folder = training_folder(material, f"08_phase_III{suffix}", settings, modules, head=name, options=options)
    return train(modules, phase_three(settings.steps), material.train, settings, folder, device=run.device, **reports)
