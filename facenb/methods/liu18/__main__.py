"""Train phase I or III without a notebook, for instance on many GPUs or nodes:

    python -m facenb run notebooks/04_fitting_many_images.ipynb --profile full     (makes the images)
    torchrun --nproc-per-node 4 -m facenb.methods.liu18 I --profile full

The notebook of that phase then finds its training done, and measures it. Phase III starts from the network of 07.
"""

import argparse

from facenb.methods.liu18.measures import need_network
from facenb.methods.liu18.recognition import materials
from facenb.methods.liu18.trainings import train_phase_one, train_phase_three
from facenb.runs.results import DATA, DEVICES, PROFILES, Run
from facenb.training import TensorBoard

NOTEBOOKS = {"I": "06_phase_one_encoder", "III": "08_phase_three_joint"}


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="facenb.methods.liu18", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=NOTEBOOKS)
    parser.add_argument("--profile", choices=PROFILES, default="quick")
    parser.add_argument("--data", choices=DATA, default="synthetic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--run-folder", default="")
    parser.add_argument("--tensorboard", action="store_true", help="write curves into the run folder, tensorboard/")
    given = parser.parse_args(arguments)
    run = Run(NOTEBOOKS[given.phase], given.profile, given.data, given.seed, given.device, given.run_folder)
    for suffix, material in materials(run).items():
        name = f"phase_{given.phase}{suffix}"
        watch = TensorBoard(run.path(f"tensorboard/{name}")) if given.tensorboard else None
        if given.phase == "I":
            history = train_phase_one(material, material.new_network(run.seed), suffix, watch=watch)
        else:
            network = need_network(run, f"liu18_II{suffix}", "07_phase_two_decoders")
            history = train_phase_three(material, network, suffix, watch=watch)
        print(f"{name}: {history.log['step'].iloc[-1]:.0f} steps, {history.seconds:.0f} s")


if __name__ == "__main__":
    main()
