"""Files that are there whole or not at all."""

import json
import os
import signal
import subprocess
import sys

import pytest

from facenb.files import atomic_write, write_json


def test_the_new_content_takes_the_old_ones_place(tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("old")
    with atomic_write(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old" and partial.parent == tmp_path
    assert file.read_text() == "new" and os.listdir(tmp_path) == ["file.txt"]


def test_an_error_keeps_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(file) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file.txt"):
        pass
    assert not os.listdir(tmp_path)


def test_the_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls, sync, move = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), move(*paths)))
    with atomic_write(tmp_path / "file.txt") as partial:
        partial.write_text("new")
    assert calls == ["fsync", "replace"]


def test_a_full_disk_is_the_error_that_is_told(tmp_path, monkeypatch):
    """Not that of clearing up after it."""

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), atomic_write(tmp_path / "file.txt") as partial:
        partial.write_text("half")
        monkeypatch.setattr("pathlib.Path.unlink", lambda *_: (_ for _ in ()).throw(PermissionError("no")))
        monkeypatch.setattr(os, "replace", full)


def test_two_processes_and_one_that_is_killed(tmp_path):
    """A process writes half a file and waits; this one writes the same file; the other is killed."""
    file = tmp_path / "file.txt"
    script = (
        "import sys, time; from facenb.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as partial:\n"
        "    partial.write_text('half'); print('half', flush=True); time.sleep(100)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, file], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "half\n"
    with atomic_write(file) as partial:
        partial.write_text("whole")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert file.read_text() == "whole"
    assert sorted(os.listdir(tmp_path)) == [f".file.txt.{other.pid}.partial", "file.txt"]


def test_json_is_read_back_by_any_reader(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, "é"]})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"x": [1, "é"]}
