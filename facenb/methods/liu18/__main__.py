"""Train phase I or III without a notebook, for instance on many GPUs or nodes:

    python -m facenb run notebooks/04_fitting_many_images.ipynb --profile full     (makes the images)
    torchrun --nproc-per-node 4 -m facenb.methods.liu18 I --profile full

The notebook of that phase then finds its training done, and measures it. Phase III starts from the network of 07.
"""

import argparse
from dataclasses import replace

import torch

from facenb.methods.liu18.material import Material, training_folder
from facenb.methods.liu18.measures import need_network
from facenb.methods.liu18.phases import phase_one, phase_three
from facenb.methods.liu18.recognition import materials
from facenb.networks.heads import make_head
from facenb.runs.results import DATA, DEVICES, PROFILES, Run
from facenb.training import History, TensorBoard, train


def train_phase_one(run: Run, suffix: str, material: Material, board: bool) -> History:
    """Train phase I as notebook 06 does, in the same folder."""
    settings = replace(material.plan.one, seed=run.seed)
    folder = training_folder(material, f"06_phase_one_encoder{suffix}", settings)
    modules = {"network": material.new_network(run.seed)}
    watch = TensorBoard(folder / "tensorboard") if board else None
    return train(modules, phase_one, material.train, settings, folder, watch=watch, device=run.device)


def train_phase_three(run: Run, suffix: str, material: Material, board: bool) -> History:
    """Train phase III as notebook 08 does, in the same folder."""
    settings, (head, options) = material.plan.three, material.plan.head
    network, targets = need_network(run, f"liu18_II{suffix}", "07_phase_two_decoders", None), material.supervision()
    torch.manual_seed(run.seed)
    made = make_head(head, network.identity, material.train.classes, **options)
    modules = {"network": network, "head": made.to(run.device), "targets": targets.to(run.device)}
    folder = training_folder(material, f"08_phase_III{suffix}", settings, modules, head=head, options=options)
    watch = TensorBoard(folder / "tensorboard") if board else None
    return train(modules, phase_three(settings.steps), material.train, settings, folder, watch=watch, device=run.device)


PHASES = {"I": ("06_phase_one_encoder", train_phase_one), "III": ("08_phase_three_joint", train_phase_three)}


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="facenb.methods.liu18", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("--profile", choices=PROFILES, default="quick")
    parser.add_argument("--data", choices=DATA, default="synthetic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--run-folder", default="")
    parser.add_argument("--tensorboard", action="store_true", help="write curves into the folder of the training")
    given = parser.parse_args(arguments)
    notebook, trained = PHASES[given.phase]
    run = Run(notebook, given.profile, given.data, given.seed, given.device, given.run_folder)
    for suffix, material in materials(run).items():
        history = trained(run, suffix, material, given.tensorboard)
        print(f"phase {given.phase}{suffix}: {history.log['step'].iloc[-1]:.0f} steps, {history.seconds:.0f} s")


if __name__ == "__main__":
    main()
