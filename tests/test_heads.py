"""The class heads against the papers' formulas, angle by angle."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from facenb.networks.heads import HEADS, make_head

FEATURES, CLASSES = 6, 5
LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 0])
MARGINS = ("a-softmax", "cosface", "arcface")
ANGLES = torch.linspace(0, math.pi, 181, dtype=torch.float64)


def make(name: str, annealing: float | None = None, **options) -> torch.nn.Module:
    """A head; `annealing` holds the lambda of A-softmax."""
    torch.manual_seed(0)
    head = make_head(name, FEATURES, CLASSES, **options).double()
    if annealing is not None:
        head.START, head.LEAST = annealing, 0.0
    return head


def codes() -> torch.Tensor:
    return torch.randn(len(LABELS), FEATURES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def angles(head, code) -> torch.Tensor:
    """theta_j of each code and class, from the law of cosines: another way than a dot product of unit vectors."""
    one, other = code[:, None] / code.norm(dim=1)[:, None, None], head.weight / head.weight.norm(dim=1, keepdim=True)
    return 2 * torch.asin((one - other).norm(dim=2) / 2)


def psi(theta: float) -> float:
    """(-1)^k cos(4 theta) - 2k for theta in [k pi / 4, (k + 1) pi / 4] (SphereFace, Eq. 7)."""
    k = min(int(theta * 4 / math.pi), 3)
    return (-1) ** k * math.cos(4 * theta) - 2 * k


def own(name: str, theta: float, length: float, **options) -> float:
    """The label's logit by the paper's formula."""
    if name == "cosface":
        return options["scale"] * (math.cos(theta) - options["margin"])
    if name == "arcface":
        turned = theta + options["margin"]
        past = math.cos(theta) - options["margin"] * math.sin(options["margin"])
        return options["scale"] * (math.cos(turned) if turned < math.pi else past)
    weight = options["annealing"]
    return length * (weight * math.cos(theta) + psi(theta)) / (1 + weight)


CASES = [
    ("cosface", {"scale": 20.0, "margin": 0.0}),
    ("cosface", {"scale": 30.0, "margin": 0.2}),
    ("arcface", {"scale": 16.0, "margin": 0.4}),
    ("arcface", {"scale": 16.0, "margin": 1.2}),
    ("a-softmax", {"annealing": 0.0}),
    ("a-softmax", {"annealing": 9.0}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_labels_logit_is_the_papers_formula(name, options):
    head, code = make(name, **options), codes()
    logits, theta = head(code, LABELS), angles(head, code)
    for row, label in enumerate(LABELS.tolist()):
        expected = own(name, theta[row, label].item(), code[row].norm().item(), **options)
        assert logits[row, label].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_other_logits_have_no_margin(name, options):
    head, code = make(name, **options), codes()
    logits, theta = head(code, LABELS), angles(head, code)
    length = options.get("scale") or code.norm(dim=1, keepdim=True)
    others = torch.ones(len(LABELS), CLASSES).scatter(1, LABELS[:, None], 0).bool()
    assert torch.allclose(logits[others], (length * theta.cos())[others], atol=1e-9)


def test_softmax_is_a_linear_layer():
    head, code = make("softmax"), codes()
    with torch.no_grad():
        head.bias.normal_()
    assert torch.allclose(head(code, LABELS), code @ head.weight.T + head.bias)


def aligned(name: str, **options) -> tuple[torch.nn.Module, torch.Tensor]:
    """A head and codes that turn from class 0's weight to its opposite, in steps of ANGLES."""
    head = make(name, **options)
    with torch.no_grad():
        head.weight[0] = torch.eye(FEATURES)[0]
    code = torch.zeros(len(ANGLES), FEATURES, dtype=torch.float64)
    code[:, 0], code[:, 1] = ANGLES.cos(), ANGLES.sin()
    return head, code


def test_psi_falls_without_a_jump():
    head, code = aligned("a-softmax", annealing=0.0)
    values = head(code, torch.zeros(len(ANGLES), dtype=torch.int64))[:, 0]
    steps = values.diff()
    assert (steps < 1e-9).all() and (steps > -4 * math.pi / 180 - 1e-6).all()
    assert values[0].item() == pytest.approx(1)
    assert values[-1].item() == pytest.approx(1 - 2 * 4)


@pytest.mark.parametrize(("name", "margin"), [("cosface", 0.35), ("arcface", 0.5), ("arcface", 1.5)])
def test_a_larger_angle_never_scores_more(name, margin):
    head, code = aligned(name, margin=margin)
    values = head(code, torch.zeros(len(ANGLES), dtype=torch.int64))[:, 0]
    assert (values.diff() < 1e-9).all()


@pytest.mark.parametrize("name", HEADS)
def test_gradients_are_those_of_finite_differences(name):
    options = {"softmax": {}, "a-softmax": {"annealing": 1.0}}.get(name, {"scale": 3.0})
    head = make(name, **options).eval()
    assert torch.autograd.gradcheck(lambda code: head(code, LABELS), codes().requires_grad_())


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_gradients_are_finite_where_a_code_lies_on_a_weight_or_is_nothing(name, single):
    head = make(name)
    head = head.float() if single else head
    code = torch.cat([head.weight, -head.weight, 0 * head.weight]).detach().requires_grad_()
    cross_entropy(head(code, torch.arange(CLASSES).repeat(3)), torch.arange(CLASSES).repeat(3)).backward()
    assert code.grad.isfinite().all() and all(p.grad.isfinite().all() for p in head.parameters())


def test_lambda_falls_as_the_authors_schedule_does():
    head, code = make("a-softmax"), codes()
    for call in range(4):
        assert head.annealing.item() == pytest.approx(1000 / (1 + 0.12 * call))
        head(code, LABELS)
    head.calls.fill_(10**6)
    assert head.annealing.item() == 5


def test_lambda_stands_still_in_eval_and_is_saved():
    head = make("a-softmax")
    head(codes(), LABELS)
    head.eval()(codes(), LABELS)
    assert head.calls.item() == 1
    again = make("a-softmax")
    again.load_state_dict(head.state_dict())
    assert again.annealing == head.annealing


@pytest.mark.parametrize("name", HEADS)
def test_sixteen_bit_trainings_get_logits_in_full_precision(name):
    head, code = make(name).float().eval(), codes().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(code, LABELS)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, head(code.float(), LABELS), atol=1e-5)


def test_an_unknown_head_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="'triplet'.*softmax, a-softmax, cosface, arcface"):
        make("triplet")
