"""How fast a picture becomes a 3D face (SphereFace and both linear decoders), how fast it trains, and what bounds it.

Run with the machine to itself: `python benchmarks/liu18_network.py [--markdown] [--networks sphereface20,narrow]`. The
fastest of the repeats is printed. The roofline is the time the machine cannot be faster than, layer after layer: its
multiplications at the speed of a large matrix product, or its inputs, weights and outputs at the speed of a long read,
whichever takes longer; both speeds are measured first. Liu et al. 2018 report 4.79 ms a picture on a GTX 1080.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from facenb.losses import coefficient_loss, joint_loss, shape_loss
from facenb.networks.heads import make_head
from facenb.networks.joint import JointNetwork
from facenb.networks.sphereface import SphereFace

BATCHES = "1,256"
PEOPLE = 10_575  # CASIA-WebFace's
NETWORKS = {  # the paper's, and what `quick` trains on SynthFace
    "sphereface20": lambda: JointNetwork(SphereFace(), 199, 29, 29_495),
    "narrow": lambda: JointNetwork(
        SphereFace((24, 48, 96, 192), features=256, size=(64, 64), batch_norm=True), 80, 18, 4_958
    ),
}


@dataclass(frozen=True)
class Mode:
    """One way to run the same network."""

    name: str
    channels_last: bool = False
    half: bool = False
    compiled: bool = False


MODES = (
    Mode("eager"),
    Mode("channels last", channels_last=True),
    Mode("bf16", half=True),
    Mode("channels last, bf16", channels_last=True, half=True),
    Mode("compiled", compiled=True),
    Mode("compiled, channels last", channels_last=True, compiled=True),
    Mode("compiled, channels last, bf16", channels_last=True, half=True, compiled=True),
)


@dataclass
class Machine:
    """Highest speeds seen: operations a second by number type, bytes a second."""

    device: torch.device
    operations: dict[torch.dtype, float]
    bandwidth: float = 0.0

    def measure(self) -> None:
        """A large matrix product and a long read; again between the tables, should others have disturbed."""
        side = 8192 if self.device.type == "cuda" else 2048
        for dtype in (torch.float32, torch.bfloat16):
            one, other = (torch.randn(side, side, device=self.device).to(dtype) for _ in range(2))
            speed = 2 * side**3 / fastest(lambda a=one, b=other: a @ b, self.device, 1.0, 5)
            self.operations[dtype] = max(speed, self.operations.get(dtype, 0.0))
        long = torch.ones(2**28, device=self.device)  # 1 GiB
        self.bandwidth = max(long.nbytes / fastest(long.sum, self.device, 1.0, 5), self.bandwidth)


@dataclass(frozen=True)
class Timed:
    """One figure: seconds, and the layers that were passed, each as operations and numbers moved."""

    name: str
    mode: Mode
    batch: int
    seconds: float | None  # None: torch.compile found no compiler
    layers: list[tuple[int, int]]

    def cells(self, machine: Machine, passes: int = 1) -> list[str]:
        """Operations a second, share of the roofline and what bounds, for so many passes of the layers."""
        if self.seconds is None:
            return ["-"] * 3
        speed = machine.operations[torch.bfloat16 if self.mode.half else torch.float32]
        width = (2 if self.mode.half else 4) / machine.bandwidth
        compute = sum(o / speed for o, n in self.layers if o / speed > n * width)
        memory = sum(n * width for o, n in self.layers if o / speed <= n * width)
        operations = passes * sum(o for o, _ in self.layers)
        share = passes * (compute + memory) / self.seconds
        bound = "compute" if compute > memory else "memory"
        return [f"{operations / self.seconds / 1e9:,.0f}", f"{100 * share:.0f} %", bound]


def fastest(work: Callable[[], object], device: torch.device, seconds: float, least: int = 3) -> float:
    """Seconds of the fastest call; at least `least` calls and about `seconds` in all, the first one left out."""
    best, spent, calls = float("inf"), 0.0, -1
    while calls < least or spent < seconds:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - start
        calls += 1
        if calls:
            best, spent = min(best, took), spent + took
    return best


def layers(network: nn.Module, batch: int) -> list[tuple[int, int]]:
    """Operations and numbers moved of each convolution and linear layer: the rest could be fused with them."""
    found = []

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        operations = 2 * output.numel() * layer.weight[0].numel()
        weights = sum(parameter.numel() for parameter in layer.parameters())
        found.append((batch * operations, batch * (inputs[0].numel() + output.numel()) + weights))

    hooks = [m.register_forward_hook(watch) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        network.shape(network.eval().encode(network.mean_shape.new_zeros(1, 3, *network.encoder.size)))
    for hook in hooks:
        hook.remove()
    return found


def ready(mode: Mode, name: str, device: torch.device) -> tuple[nn.Module, Callable[[Tensor], object]]:
    """The network as the mode wants it, and the forward pass from pictures to whole faces."""
    torch.manual_seed(0)
    network = NETWORKS[name]().to(device).eval()
    if mode.channels_last:
        network = network.to(memory_format=torch.channels_last)

    def forward(images: Tensor) -> Tensor:
        return network.shape(network.encode(images)).whole

    run = forward
    if mode.compiled and device.type == "cuda":
        run = torch.compile(forward, dynamic=False, mode="reduce-overhead")  # CUDA graphs
    elif mode.compiled:
        run = torch.compile(
            forward, dynamic=False, options={"freezing": True}
        )  # weights are packed for the kernels once
    return network, run


def pictures(batch: int, network: nn.Module, mode: Mode, device: torch.device) -> Tensor:
    images = torch.rand(batch, 3, *network.encoder.size, device=device) * 2 - 1
    return images.contiguous(memory_format=torch.channels_last if mode.channels_last else torch.contiguous_format)


def forward(name: str, device: torch.device, batches: list[int], seconds: float) -> list[Timed]:
    """The forward pass, in each mode and at each batch."""
    figures = []
    for mode in MODES:
        torch._dynamo.reset()
        network, run = ready(mode, name, device)
        for batch in batches:
            images = pictures(batch, network, mode, device)
            took = None
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=mode.half):
                try:
                    took = fastest(lambda x=images, go=run: go(x), device, seconds)
                except Exception as error:  # whatever a missing or too old compiler leads to
                    if not mode.compiled:
                        raise
                    print(f"{name}, {mode.name}: torch.compile failed, probably for want of a C++ compiler")
                    print(f"  {first_line(error)}")
            figures.append(Timed(name, mode, batch, took, layers(network, batch)))
        print(".", end="", flush=True)
    print()
    return figures


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"


def training(name: str, device: torch.device, batch: int, seconds: float) -> list[Timed]:
    """A whole step of phase III (both losses, gradients, SGD), pictures already on the device."""
    figures = []
    for mode in (mode for mode in MODES if not mode.compiled):
        torch.manual_seed(0)
        network = NETWORKS[name]().to(device).train()
        if mode.channels_last:
            network = network.to(memory_format=torch.channels_last)
        head = make_head("softmax", network.identity, PEOPLE).to(device)
        optimiser = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=1e-6, momentum=0.9)
        images = pictures(batch, network, mode, device)
        labels = torch.randint(0, PEOPLE, (batch,), device=device)
        target = torch.randn(batch, network.vertices, 3, device=device)
        codes = torch.rand(batch, network.identity, device=device)

        def step(
            network=network,
            head=head,
            optimiser=optimiser,
            images=images,
            labels=labels,
            target=target,
            codes=codes,
            half=mode.half,
        ):
            optimiser.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                found = network.encode(images)
                whole = network.shape(found).whole
                loss = joint_loss(shape_loss(whole, target), cross_entropy(head(found.identity, labels), labels), 0.5)
                loss = loss + coefficient_loss(found.identity.float(), codes)
            loss.backward()
            optimiser.step()

        figures.append(Timed(name, mode, batch, fastest(step, device, seconds), layers(network, batch)))
        print(".", end="", flush=True)
    print()
    return figures


def row(figure: Timed, machine: Machine, passes: int) -> list[str]:
    """A line of a table."""
    rate = figure.batch / figure.seconds if figure.seconds else 0
    speed = [f"{1000 / rate:.3f}", f"{rate:,.0f}"] if rate else ["-", "-"]
    return [figure.name, figure.mode.name, str(figure.batch), *speed, *figure.cells(machine, passes)]


def show(head: list[str], rows: list[list[str]], markdown: bool) -> None:
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    for number, row in enumerate([head, *rows]):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print(f"| {' | '.join(cells)} |" if markdown else "  ".join(cells))
        if number == 0 and markdown:
            print("|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="which, with commas (default: all)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each figure is measured (default 1)")
    parser.add_argument("--batches", default=BATCHES, help=f"of the forward pass, with commas (default {BATCHES})")
    parser.add_argument(
        "--batch", type=int, help="of the training step, 0 for none (default: 32 on a CPU, 256 on a GPU)"
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables for benchmarks/RESULTS.md")
    options = parser.parse_args()
    device = torch.device(options.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    names = options.networks.split(",")
    for name in names:
        network = NETWORKS[name]()
        height, width = network.encoder.size
        millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        print(f"{name}: {height} x {width} pixels, {network.identity} + {network.residual} codes, ", end="")
        print(f"{network.vertices:,} vertices, {millions:.1f} M parameters")
    batch = (256 if device.type == "cuda" else 32) if options.batch is None else options.batch
    batches = [int(batch) for batch in options.batches.split(",")]
    machine = Machine(device, {})
    machine.measure()
    passes = [figure for name in names for figure in forward(name, device, batches, options.seconds)]
    machine.measure()
    steps = [figure for name in names if batch for figure in training(name, device, batch, options.seconds)]
    machine.measure()
    print(f"measured: {machine.operations[torch.float32] / 1e12:.2f} TFLOP/s in 32 bits, ", end="")
    print(f"{machine.operations[torch.bfloat16] / 1e12:.2f} in bf16, reading {machine.bandwidth / 1e9:,.1f} GB/s")
    head = ["network", "forward", "batch", "ms an image", "images/s", "GFLOP/s", "of roofline", "bound by"]
    show(
        head, [row(figure, machine, 1) for figure in sorted(passes, key=lambda f: (f.name, f.batch))], options.markdown
    )
    if steps:
        print()
        show(["network", "training", *head[2:]], [row(figure, machine, 3) for figure in steps], options.markdown)
        print("A step counts as three forward passes; the optimiser and the losses are not counted.")


if __name__ == "__main__":
    main()
