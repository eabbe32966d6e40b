"""Parts of the reference trainings: what is written is read back, what does not belong together is refused."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from helpers import truncated

from facenb import savefile
from facenb.errors import ModelFileError, RunError
from facenb.files import hold
from facenb.methods.deca.reference import EARLIER
from facenb.methods.luo19 import Siamese
from facenb.morphable.model import MorphableModel
from facenb.networks.deca import Deca
from facenb.networks.joint import JointNetwork
from facenb.networks.sphereface import SphereFace
from facenb.reference import Shipment, read_part, read_seeds, rounded, shipment, strength_of
from facenb.reference.__main__ import main
from facenb.reference.shipment import CARD, MEASURES, PACKAGE, write_part
from facenb.synthface.model import course_model, with_jaw

KINDS = {kind.kind: kind for kind in (Deca, JointNetwork, Siamese)}
SHIPPED = sorted(path.parent.name for path in PACKAGE.glob(f"*/{CARD}"))


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return truncated(course_model(), 4, 2)


WHOLE = {str(top): torch.tensor([0, 1, -top]) for top in (127, 128, 1 << 14, 1 << 20, 1 << 40)}  # of several types
WHOLE["right"] = torch.tensor([True, False, True])


def network_of(model: MorphableModel) -> JointNetwork:
    torch.manual_seed(1)
    encoder = SphereFace((4, 6), (1, 1), 8, (16, 12), batch_norm=True)
    network = JointNetwork(encoder, len(model.identity_basis), len(model.expression_basis), len(model.mean))
    network.set_mean_shape(model.mean)
    for scaling in (network.identity_scaling, network.residual_scaling):
        scaling.half_range.uniform_(0.5, 2)
    return rounded(network.eval())


@pytest.fixture
def part(model, tmp_path):
    """A part that was written: a network whose decoders are the model's, one whose decoders are its own."""
    of_model, learned = network_of(model), network_of(model)
    of_model.set_bases(model.identity_basis, model.expression_basis)
    networks = {"of_model": of_model, "learned": learned}
    measures = {"method/seed0/whole": torch.arange(3.0)} | WHOLE
    write_part(tmp_path, "part", Shipment(model, networks, measures, {"seconds": 90.0}), {"command": "none"})
    return networks, read_part("part", folder=tmp_path)


class TestPart:
    @pytest.mark.parametrize("name", ["of_model", "learned"])
    def test_network_comes_back_as_it_was_measured(self, part, model, name):
        networks, written = part
        images, read = torch.rand(2, 3, 16, 12), written.network(name, JointNetwork, model)
        codes = networks[name].encode(images)
        assert torch.equal(read.encode(images).identity, codes.identity)
        assert torch.equal(read.shape(codes).whole, networks[name].shape(codes).whole)

    def test_what_the_model_gives_is_not_stored(self, part):
        """Neither the mean face nor decoders that are still the model's bases."""
        folder = part[1].folder
        stored = [set(savefile.load(folder / f"{name}.safetensors", JointNetwork.kind)[0]) for name in part[0]]
        assert {name for name in stored[1] - stored[0]} == {n for n in stored[1] if "_decoder." in n} != set()
        assert "mean_shape" not in stored[0] | stored[1]

    def test_mean_face_of_its_own_is_stored(self, model, tmp_path):
        network = network_of(model)
        network.set_mean_shape(model.mean + 1)
        write_part(tmp_path, "part", Shipment(model, {"own": network}, {}, {}), {})
        read = read_part("part", folder=tmp_path).network("own", JointNetwork, model)
        assert torch.equal(read.mean_shape, model.mean + 1)

    def test_weights_are_half_as_large(self, part):
        tensors, _ = savefile.load(part[1].folder / "learned.safetensors", JointNetwork.kind)
        assert tensors["encoder.fc.weight"].dtype == torch.float16
        assert tensors["encoder.fc.bias"].dtype == torch.float32

    def test_measures_and_time_come_back(self, part):
        assert torch.equal(part[1].measures["method/seed0/whole"], torch.arange(3.0))
        for name, values in WHOLE.items():
            assert torch.equal(part[1].measures[name], values) and part[1].measures[name].dtype == values.dtype
        assert part[1].minutes == 1.5

    def test_written_again_loses_files_of_before(self, part, model):
        folder = part[1].folder
        write_part(folder.parent, "part", Shipment(model, {}, {"x": torch.ones(1)}, {}), {})
        assert sorted(path.name for path in folder.iterdir()) == [CARD, MEASURES]


class TestRefusals:
    def test_another_model_is_named(self, part, model):
        with pytest.raises(
            ModelFileError, match="network learned was trained for another model: name synthface, not other"
        ):
            part[1].network("learned", JointNetwork, replace(model, name="other"))

    @pytest.mark.parametrize("damage", ["truncated", "renamed", "of another training"])
    def test_file_that_is_not_of_the_card(self, part, model, damage):
        path = part[1].folder / "learned.safetensors"
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-100])
        elif damage == "renamed":
            (part[1].folder / "of_model.safetensors").replace(path)
        else:
            tensors, facts = savefile.load(path, JointNetwork.kind)
            savefile.save(path, JointNetwork.kind, {k: v + 1 for k, v in tensors.items()}, facts)
        with pytest.raises(ModelFileError, match=r"learned.safetensors is damaged or of another training.*PART=part"):
            part[1].network("learned", JointNetwork, model)

    def test_measures_of_other_weights(self, part):
        savefile.save(part[1].folder / MEASURES, "measures", {"method/seed0/whole": torch.zeros(3)}, {})
        with pytest.raises(ModelFileError, match=r"measures.safetensors is damaged or of another training"):
            _ = part[1].measures

    def test_another_architecture(self, part, model, monkeypatch):
        monkeypatch.setattr(JointNetwork, "from_config", lambda config: torch.nn.Linear(2, 2))
        monkeypatch.setattr(torch.nn.Linear, "from_shipped", JointNetwork.from_shipped, raising=False)
        with pytest.raises(ModelFileError, match="does not fit the architecture JointNetwork"):
            part[1].network("learned", JointNetwork, model)

    def test_missing_file_and_unknown_name(self, part, model):
        (part[1].folder / "learned.safetensors").unlink()
        with pytest.raises(ModelFileError, match=r"learned.safetensors is missing"):
            part[1].network("learned", JointNetwork, model)
        with pytest.raises(ModelFileError, match=r"has no other.safetensors, only of_model.safetensors"):
            part[1].network("other", JointNetwork, model)

    def test_part_that_nobody_trained(self, tmp_path):
        with pytest.raises(RunError, match="Train it with: make reference PART=none DATA=photos"):
            read_part("none", "photos", tmp_path)

    def test_as_many_seeds_as_were_trained(self, model, tmp_path):
        facts = {"people": {"train": 3}, "images": {"train": 6}, "seeds": [0], "seconds": 60}
        with pytest.raises(RunError, match="PART=arms-0"):
            read_seeds("arms", folder=tmp_path)
        for seed in (0, 1, 3):
            write_part(tmp_path, f"arms-{seed}", Shipment(model, {}, {"x": torch.ones(1)}, facts), {"device": "a CPU"})
        parts = read_seeds("arms", folder=tmp_path)
        assert [part.card["part"] for part in parts] == ["arms-0", "arms-1"]
        assert strength_of(parts) == "reference: 3 people, 6 images, 2 seeds, 2 min on a CPU"

    def test_damaged_card(self, part):
        (part[1].folder / CARD).write_text(json.dumps({"files": 3}))
        with pytest.raises(ModelFileError, match="is not a card"):
            read_part("part", folder=part[1].folder.parent)

    def test_full_disk_leaves_no_card(self, model, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shipment, "write_json", fail)
        with pytest.raises(RunError, match=r"Cannot write .*card.json .*No space left"):
            write_part(tmp_path, "part", Shipment(model, {"net": network_of(model)}, {}, {}), {})
        with pytest.raises(RunError, match="has not been trained"):
            read_part("part", folder=tmp_path)


class TestCommand:
    def test_unknown_part(self, capsys):
        with pytest.raises(SystemExit):
            main(["liu19"])
        assert "there is no part 'liu19'; the parts are liu18" in capsys.readouterr().err

    def test_started_twice(self, tmp_path, capsys):
        with hold(tmp_path / "reference.lock"):
            assert main(["liu18", "--profile", "smoke", "--run-folder", str(tmp_path)]) == 1
        assert "Another command trains in" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same(tmp_path):
    """Kill the command at its first checkpoint; what the second start measures is what an undisturbed run measures."""
    command = [sys.executable, "-m", "facenb.reference", "liu18", "--profile", "smoke", "--run-folder"]
    killed = subprocess.Popen([*command, str(tmp_path / "killed")])
    while not list(tmp_path.glob("killed/training/06_*/checkpoint-*.pt")):
        assert killed.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "killed/parts").exists()
    shutil.copytree(tmp_path / "killed/sets", tmp_path / "whole/sets")
    for folder in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / folder)], check=True)
    one, other = (read_part("liu18", folder=tmp_path / folder / "parts").measures for folder in ("killed", "whole"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def shipped(name, title):
    """Return a network that ships, and what its card says of it. Modules that it lacks come from an earlier part."""
    part, before = read_part(name, folder=PACKAGE), EARLIER.get(name)
    facts, earlier = part.card["networks"][title], shipped(before, before)[0] if before else None
    model = with_jaw(course_model()) if facts["kind"] == Deca.kind else course_model()
    return part.network(title, KINDS[facts["kind"]], model, earlier), facts


class TestShipped:
    """If one of these fails, the code of a network has changed: train the part that the message names again."""

    @pytest.mark.parametrize("name", SHIPPED)
    def test_networks_compute_what_they_computed(self, name):
        for title in read_part(name, folder=PACKAGE).card["networks"]:
            network, facts = shipped(name, title)
            now = network.probe()
            again = f"{title} computes other values than when it was trained. Run: make reference PART={name}"
            assert torch.allclose(now, torch.tensor(facts["probe"]), rtol=1e-3, atol=1e-3), again

    def test_package_stays_small(self):
        files = [*PACKAGE.rglob("*.safetensors"), *PACKAGE.rglob("*.json")]
        assert sum(path.stat().st_size for path in files) < 20e6
