"""How fast a teacher learns by analysis by synthesis, what share of a step the renderer takes, and what bounds it.

A step at the paper's size: ResNet-50, pictures of 224 x 224, SynthFace's model with a jaw, landmarks, photometric loss
and shape consistency (so every picture is drawn twice). Then the step of the detail. Run with the machine to itself:
`python benchmarks/teacher.py [--device cuda] [--side 224] [--pairs 4] [--narrow]`. The fastest of the repeats counts.
"""

import argparse
import platform
import time

import torch

from facenb.methods.deca.scene import Stage, window_of
from facenb.methods.deca.teacher import CoarseLoss, DetailLoss, train_only
from facenb.morphable.mesh import cut, landmark_vertices
from facenb.networks.deca import UNITS, Deca, layout_of
from facenb.synthface import build_model, with_jaw

REPEATS = 5


def fastest(call, device: torch.device) -> float:
    """Seconds of the fastest of a few calls, after one that nobody counts."""
    seconds = []
    for _ in range(REPEATS + 1):
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", type=int, default=224, help="pixels of a picture's side")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of pictures in a batch")
    parser.add_argument("--narrow", action="store_true", help="the network of the quick profile, not ResNet-50")
    asked = parser.parse_args()
    device, count = torch.device(asked.device), 2 * asked.pairs

    torch.manual_seed(0)
    model = with_jaw(build_model(people=100))
    face = cut(model, torch.cat([model.regions["face"], landmark_vertices(model)]))
    stage = Stage.of(face, layout_of(face)).to(device)
    encoder = {"blocks": (1, 1, 1, 1), "width": 12, "places": True} if asked.narrow else None
    shrink = 2 if asked.narrow else 1
    decoder = {"window": window_of(face), "reach": 1.5}
    decoder |= {"texels": 64} if asked.narrow else {}
    network = Deca(stage.layout, encoder, decoder=decoder, scale=11.0, units=UNITS, shrink=shrink).to(device).train()
    batch = {
        "image": 2 * torch.rand(count, 3, asked.side, asked.side, device=device) - 1,
        "bare": torch.ones(count, asked.side, asked.side, device=device),
        "landmarks": asked.side * torch.rand(count, 68, 2, device=device),
    }
    flat = network.eval()(batch["image"]).detach()
    network.train()

    def step(loss, detail: bool):
        def call():
            loss(network, batch)["loss"].backward()
            network.zero_grad()

        train_only(network, detail)
        return fastest(call, device)

    def of_network(part, images):
        def call():
            part(images).square().mean().backward()
            network.zero_grad()

        return fastest(call, device)

    def drawing():
        leaf = flat.clone().requires_grad_()
        stage.coarse(leaf, (asked.side // shrink, asked.side // shrink)).image.mean().backward()

    coarse = CoarseLoss(stage, shrink=shrink)
    rows = [("coarse", step(coarse, False), of_network(network.coarse, batch["image"]), 2 * fastest(drawing, device))]
    code = torch.zeros(count, network.config["detail"], device=device)
    maps = network.displacement(flat, code).detach()

    def details():
        leaf = maps.clone().requires_grad_()
        shift = stage.displacement(network.decoder, leaf)
        stage.detailed(flat, shift, (asked.side, asked.side)).image.mean().backward()

    def networks():
        """All networks of a step of the detail: the frozen coarse one forward, the code's and the decoder both ways."""
        with torch.no_grad():
            said = network(batch["image"])
        network.displacement(said, network.detail_code(batch["image"])).square().mean().backward()
        network.zero_grad()

    whole = step(DetailLoss(stage), True)
    rows.append(("detail", whole, fastest(networks, device), fastest(details, device)))
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    kind = "narrow" if asked.narrow else "ResNet-50"
    print(
        f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}; {kind}, {count} pictures of "
        f"{asked.side} x {asked.side}, {len(face.mean)} vertices, {len(stage.uv)} in detail"
    )
    print("| step | pictures a second | ms a picture | network | renderer | rest | bound by |")
    print("|-|-|-|-|-|-|-|")
    for name, total, net, draw in rows:
        rest = max(total - net - draw, 0.0)
        shares = {"the network": net / total, "the renderer": draw / total, "the rest": rest / total}
        bound = max(shares, key=shares.get)
        told = " | ".join(f"{100 * share:.0f} %" for share in shares.values())
        print(f"| {name} | {count / total:.1f} | {1000 * total / count:.1f} | {told} | {bound} |")


if __name__ == "__main__":
    main()
