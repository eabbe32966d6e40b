"""Tables of rows: NumPy reads the same files, damage is named, a killed run continues, nothing is overwritten."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from facenb.datasets.sets.table import build_table, read_table
from facenb.errors import AssetError, RunError

SIZES = (4, 3, 0, 5, 1)  # rows of each block


def rows(first: int, count: int) -> dict[str, torch.Tensor]:
    number = torch.arange(first, first + count)
    return {
        "image": (number[:, None, None] + torch.arange(6).view(2, 3)).to(torch.uint8),
        "number": number,
        "value": number[:, None] * torch.tensor([0.5, -1.0]),
        "even": number % 2 == 0,
    }


def blocks(first: int):
    for block in range(first, len(SIZES)):
        yield rows(sum(SIZES[:block]), SIZES[block]) if SIZES[block] else {}


@pytest.fixture
def table(tmp_path):
    return build_table(tmp_path / "set", {"kind": "test"}, blocks)


def test_rows_come_back_in_the_order_asked_for(table):
    asked = torch.tensor([12, 0, 7, 7, 3, 11])
    found, expected = table.read(asked), rows(0, 13)
    assert len(table) == 13 and table.made == {"kind": "test"}
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor[asked], rtol=0, atol=0)
    assert table.read(torch.zeros(0, dtype=torch.int64), ["image"])["image"].shape == (0, 2, 3)


def test_numpy_reads_the_files(table):
    for name, tensor in rows(0, 13).items():
        np.testing.assert_array_equal(np.load(table.folder / f"{name}.npy"), tensor.numpy())


def test_changing_what_was_read_leaves_the_table_unchanged(table):
    table.read(torch.tensor([1]))["value"].zero_()
    torch.testing.assert_close(table.read(torch.tensor([1]))["value"], rows(1, 1)["value"])
    with pytest.raises(ValueError, match="read-only"):
        table.columns["number"][0] = 5


@pytest.mark.parametrize("at", [3, 200], ids=["header", "rows"])
def test_a_damaged_file_is_named(table, at):
    path = table.folder / "number.npy"
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(AssetError, match=r"number\.npy is missing, damaged"):
        read_table(table.folder)


def test_a_file_that_is_cut_short_or_missing_is_named_at_once(table):
    path = table.folder / "value.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AssetError, match=r"value\.npy is missing, damaged or cut short"):
        read_table(table.folder)
    path.unlink()
    with pytest.raises(AssetError, match=r"value\.npy is missing.*No such file"):
        read_table(table.folder)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"format": "other-1"}', '{"format": "facenb-table-1"}'])
def test_a_wrong_card_is_named(table, text):
    (table.folder / "card.json").write_text(text)
    with pytest.raises(AssetError, match=r"card\.json"):
        read_table(table.folder)


def test_a_folder_without_a_table(tmp_path):
    with pytest.raises(AssetError, match="holds no table"):
        read_table(tmp_path)


def test_a_set_of_the_first_edition_is_refused(tmp_path):
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(AssetError, match="earlier edition"):
        build_table(tmp_path, {}, lambda first: [])


def test_a_killed_run_continues(tmp_path):
    """Killed in the middle of writing a block: the whole blocks stay, the half one is written again."""
    script = (
        "import os, sys, torch\n"
        "from facenb.datasets.sets import table\n"
        "def make(first):\n"
        "    for k in range(9):\n"
        "        if k == 3:\n"
        "            table.write_json = lambda *_: os.kill(os.getpid(), 9)\n"
        "        yield {'number': torch.arange(2 * k, 2 * k + 2)}\n"
        "table.build_table(sys.argv[1], {}, make)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -9
    with pytest.raises(AssetError, match="unfinished"):
        read_table(tmp_path)
    begun = []

    def make(first):
        begun.append(first)
        yield from ({"number": torch.arange(2 * k, 2 * k + 2)} for k in range(first, 7))

    np.testing.assert_array_equal(build_table(tmp_path, {}, make).columns["number"], np.arange(14))
    assert begun == [3]


def test_an_unfinished_table_that_was_damaged_is_not_continued(tmp_path):
    def stops(first):
        yield rows(0, 4)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build_table(tmp_path, {}, stops)
    (tmp_path / "number.npy").write_bytes((tmp_path / "number.npy").read_bytes()[:140])
    with pytest.raises(AssetError, match=r"number\.npy"):
        build_table(tmp_path, {}, blocks)


def test_a_complete_table_is_read_and_never_made_again(table):
    def never(first):
        raise AssertionError

    assert len(build_table(table.folder, {"kind": "test"}, never)) == len(table)
    with pytest.raises(RunError, match="kind is 'test', not 'other'"):
        build_table(table.folder, {"kind": "other"}, never)


def test_two_builders_of_one_folder_make_it_once(tmp_path):
    begun, both = [], threading.Barrier(2)

    def make(first):
        begun.append(first)
        yield from blocks(first)

    def build():
        both.wait()
        build_table(tmp_path, {}, make)

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert begun == [0] and len(read_table(tmp_path)) == 13


@pytest.mark.parametrize(
    "change",
    [
        {"image": torch.zeros(1, 3, 3, dtype=torch.uint8)},
        {"number": torch.zeros(1)},
        {"number": torch.zeros(2, dtype=torch.int64)},
    ],
)
def test_a_block_that_does_not_match(tmp_path, change):
    with pytest.raises(AssetError, match=next(iter(change))):
        build_table(tmp_path, {}, lambda first: [rows(0, 2), {**rows(2, 1), **change}])


def test_no_rows_and_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(RunError, match="No rows"):
        build_table(tmp_path / "empty", {}, lambda first: [{}])
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Cannot write"):
        build_table(tmp_path / "file", {}, blocks)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_memory_does_not_grow_with_the_table(tmp_path):
    """200 MB of rows are read, a thousand at a time; the process's own memory grows by less than a fifth of them."""
    zeros = torch.zeros(1000, 20_000, dtype=torch.uint8)
    table = build_table(tmp_path, {}, lambda first: ({"image": zeros} for _ in range(10)))
    order = torch.randperm(len(table))
    table.read(order[:1000])
    before = own_memory()
    for part in order.split(1000):
        table.read(part)
    assert own_memory() - before < 40e6  # one batch is 20 MB


def own_memory() -> int:
    """Bytes that are not pages of a file, which the system takes back when it needs them."""
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["RssAnon"].split()[0]) * 1024
