"""Sets of shards: what was written comes back in any order, damage is named, an interrupted run goes on."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from facenb.datasets.sets.shards import ShardWriter, read_shards
from facenb.errors import AssetError, RunError


def rows(first: int, count: int) -> dict[str, torch.Tensor]:
    number = torch.arange(first, first + count)
    return {"image": (number[:, None, None] + torch.arange(6).view(2, 3)).to(torch.uint8), "number": number,
            "value": number[:, None] * torch.tensor([0.5, -1.0]), "even": number % 2 == 0}  # fmt: skip


def write(folder, sizes=(4, 3, 5, 1), per_shard=6, card=None):
    with ShardWriter(folder, card or {"kind": "test"}, per_shard) as writer:
        for start, count in zip([0, *torch.tensor(sizes).cumsum(0).tolist()], sizes, strict=False):
            writer.append(rows(start, count))
    return read_shards(folder)


@pytest.fixture
def shards(tmp_path):
    return write(tmp_path / "set")


def test_rows_come_back_in_the_order_asked_for(shards):
    asked = torch.tensor([12, 0, 7, 7, 3, 11])
    found, expected = shards.read(asked), rows(0, 13)
    assert len(shards) == 13 and len(shards.shards) == 2
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor[asked], rtol=0, atol=0)


def test_columns_and_no_rows(shards):
    torch.testing.assert_close(shards.column("number"), torch.arange(13))
    assert shards.read(torch.zeros(0, dtype=torch.int64), ["image"])["image"].shape == (0, 2, 3)


def test_shards_are_plain_safetensors(shards):
    """Another reader sees the same rows."""
    parts = [load_file(shards.folder / one["name"])["value"] for one in shards.shards]
    torch.testing.assert_close(torch.cat(parts), rows(0, 13)["value"])


def test_card_and_fields(shards):
    assert shards.card == {"kind": "test"}
    assert shards.fields["image"] == {"shape": [2, 3], "dtype": "uint8"}


def test_what_was_read_can_be_changed_without_changing_the_set(shards):
    shards.read(torch.tensor([1]))["value"].zero_()
    torch.testing.assert_close(shards.read(torch.tensor([1]))["value"], rows(1, 1)["value"])


def test_another_process_opens_its_own_files(shards):
    shards.read(torch.tensor([1]))
    torch.testing.assert_close(pickle.loads(pickle.dumps(shards)).column("number"), torch.arange(13))


@pytest.mark.parametrize("row", [-1, 13])
def test_a_row_that_is_not_there(shards, row):
    with pytest.raises(IndexError, match="has 13"):
        shards.read(torch.tensor([0, row]))


def test_a_field_that_is_not_there(shards):
    with pytest.raises(KeyError, match="depth"):
        shards.read(torch.tensor([0]), ["depth"])


def flip_a_byte(path, at=-3):
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def test_a_damaged_shard_is_named_when_first_read(shards):
    flip_a_byte(shards.folder / "shard-00001.safetensors")
    again = read_shards(shards.folder)
    again.read(torch.tensor([0, 5]))  # of the first shard
    with pytest.raises(AssetError, match=r"shard-00001\.safetensors is damaged"):
        again.read(torch.tensor([12]))
    with pytest.raises(AssetError, match="shard-00001"):
        read_shards(shards.folder).verify()


def test_unchecked_reading_still_verifies_on_demand(shards):
    flip_a_byte(shards.folder / "shard-00001.safetensors")
    trusting = read_shards(shards.folder, check=False)
    trusting.read(torch.tensor([12]))
    with pytest.raises(AssetError, match="shard-00001"):
        trusting.verify()


def test_a_damaged_header_is_named_even_unchecked(shards):
    flip_a_byte(shards.folder / "shard-00000.safetensors", 10)
    with pytest.raises(AssetError, match="shard-00000"):
        read_shards(shards.folder, check=False).read(torch.tensor([0]))


def test_a_truncated_shard_is_named_at_once(shards):
    path = shards.folder / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AssetError, match=r"shard-00000.*cut short"):
        read_shards(shards.folder)


def test_a_missing_shard_is_named_at_once(shards):
    (shards.folder / "shard-00001.safetensors").unlink()
    with pytest.raises(AssetError, match="shard-00001.* is missing"):
        read_shards(shards.folder)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"format": "other-1"}', '{"format": "facenb-shards-1"}'])
def test_a_wrong_index(shards, text):
    (shards.folder / "index.json").write_text(text)
    with pytest.raises(AssetError, match=r"index\.json"):
        read_shards(shards.folder)


def test_a_folder_without_index_is_no_set(tmp_path):
    with pytest.raises(AssetError, match="holds no set"):
        read_shards(tmp_path)
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path / "set", {}, 2) as writer:
        writer.append(rows(0, 4))
        raise ZeroDivisionError
    with pytest.raises(AssetError, match="unfinished"):
        read_shards(tmp_path / "set")


def test_an_interrupted_run_goes_on(tmp_path):
    """Killed at once, with half a shard waiting; the second run starts after the last whole shard."""
    script = (
        "import os, sys, torch\n"
        "from facenb.datasets.sets.shards import ShardWriter\n"
        "writer = ShardWriter(sys.argv[1], {'kind': 'test'}, 4)\n"
        "for k in range(5):\n"
        "    writer.append({'number': torch.arange(2 * k, 2 * k + 2)})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -9
    with ShardWriter(tmp_path, {"kind": "test"}, 4) as writer:
        assert writer.done == 4
        for k in range(writer.done, 7):
            writer.append({"number": torch.arange(2 * k, 2 * k + 2)})
    torch.testing.assert_close(read_shards(tmp_path).column("number"), torch.arange(14))


def test_leavings_of_killed_runs_are_cleared(tmp_path):
    (tmp_path / "set").mkdir()
    for name in (".shard-00000.safetensors.123.partial", "shard-00009.safetensors", "notes.txt"):
        (tmp_path / "set" / name).write_text("left")
    write(tmp_path / "set")
    names = {one.name for one in (tmp_path / "set").iterdir()}
    assert names == {"index.json", "notes.txt", "shard-00000.safetensors", "shard-00001.safetensors"}


def test_a_lost_shard_is_made_again(tmp_path):
    writer = ShardWriter(tmp_path, {}, 2)
    for k in range(3):
        writer.append({"number": torch.arange(2 * k, 2 * k + 2)})
    (tmp_path / "shard-00001.safetensors").unlink()
    assert ShardWriter(tmp_path, {}, 2).done == 1


def test_keep_forgets_later_shards(tmp_path):
    writer = ShardWriter(tmp_path, {}, 2)
    for k in range(3):
        writer.append({"number": torch.arange(2 * k, 2 * k + 2)})
    writer.keep(1)
    writer.append({"number": torch.arange(50, 52)})
    writer.close()
    assert read_shards(tmp_path).column("number").tolist() == [0, 1, 50, 51]


def test_nothing_is_overwritten(shards, tmp_path):
    with pytest.raises(RunError, match="finished set already"):
        ShardWriter(shards.folder, {"kind": "test"})
    ShardWriter(tmp_path / "half", {"size": 64}, 2).append(rows(0, 2))
    with pytest.raises(RunError, match="size is 64, not 112"):
        ShardWriter(tmp_path / "half", {"size": 112}, 2)


@pytest.mark.parametrize(
    ("batch", "says"),
    [({"image": torch.zeros(1, 3, 3, dtype=torch.uint8)}, "image"), ({"number": torch.zeros(1)}, "number"),
     ({"number": torch.zeros(2, dtype=torch.int64)}, "as many rows"), ({"even": None}, "even")],
)  # fmt: skip
def test_rows_of_another_shape_or_kind(tmp_path, batch, says):
    """As with pictures of several sizes."""
    writer = ShardWriter(tmp_path, {})
    writer.append(rows(0, 2))
    wrong = {name: value for name, value in {**rows(2, 1), **batch}.items() if value is not None}
    with pytest.raises(ValueError, match=says):
        writer.append(wrong)


def test_kinds_and_rows_a_set_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="bfloat16"):
        ShardWriter(tmp_path, {}).append({"value": torch.zeros(2, dtype=torch.bfloat16)})
    with pytest.raises(ValueError, match="one at least"):
        ShardWriter(tmp_path, {}).append({"value": torch.zeros(0)})
    with pytest.raises(RunError, match="no rows"):
        ShardWriter(tmp_path, {}).close()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        ShardWriter(tmp_path / "file", {}, 1).append({"value": torch.zeros(1)})


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_memory_does_not_grow_with_the_set(tmp_path):
    """200 MB of rows are read, a thousand at a time; memory of the process's own grows by less than a tenth."""
    zeros = torch.zeros(1000, 20_000, dtype=torch.uint8)
    with ShardWriter(tmp_path, {}, 2000) as writer:
        for _ in range(10):
            writer.append({"image": zeros})
    shards = read_shards(tmp_path)
    order = torch.randperm(len(shards))
    shards.read(order[:1000])
    before = own_memory()
    for some in order.split(1000):
        shards.read(some)
    assert own_memory() - before < 40e6  # one batch is 20 MB


def own_memory() -> int:
    """Bytes that are not pages of a file, which the system takes back when it needs them."""
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["RssAnon"].split()[0]) * 1024


def test_the_index_tells_everything(shards):
    index = json.loads((shards.folder / "index.json").read_text())
    assert [one["rows"] for one in index["shards"]] == [7, 6] and index["rows"] == 13
    assert all(len(one["sha256"]) == 64 for one in index["shards"])
