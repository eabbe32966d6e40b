"""Getting data: mirror, web (a server on this machine), hostile archives, interruptions, full disks, two at once."""

import contextlib
import dataclasses
import errno
import hashlib
import http.server
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from data_download import folders, install
from data_download.__main__ import main
from data_download.entries import Entry, File, Place, Source, load_entries, load_entry
from data_download.install import download, unpack
from facenb.assets import asset
from facenb.errors import AssetError

CONTENT = bytes(range(256)) * 4096  # 1 MiB


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_of(data: bytes, name: str = "a.bin", **more) -> File:
    return dataclasses.replace(File(name, name, len(data), sha(data)), **more)


def entry_of(*sources: Source, name: str = "thing") -> Entry:
    return Entry(name, "A thing", "photos", "home", "licence", "terms", "cite", sources)


def archive_of(kind: str, limit: int = 10**6) -> File:
    return File("a", "", unpack=kind, unpacked_limit=limit)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FACENB_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("FACENB_MIRROR", raising=False)
    return tmp_path / "data"


@pytest.fixture
def own_mirror(tmp_path, monkeypatch) -> Path:
    """A mirror folder that holds a.bin of the asset `thing`."""
    (tmp_path / "mirror" / "thing").mkdir(parents=True)
    (tmp_path / "mirror/thing/a.bin").write_bytes(CONTENT)
    monkeypatch.setenv("FACENB_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


def mirror_source(*files: File) -> Source:
    return Source("mirror:thing/", "all", "here", files)


THING = entry_of(mirror_source(file_of(CONTENT)))


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with Range; paths ask for trouble: /broken breaks once, /moved, /gone, /other."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        if self.path == "/gone":
            return self.send_error(404, "Not Found")
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return None
        data = CONTENT[::-1] if self.path == "/other" else CONTENT
        start = int(self.headers["Range"][6:-1]) if self.headers.get("Range") and self.path != "/noresume" else 0
        if start >= len(data):
            return self.send_error(416, "Range Not Satisfiable")
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        first_time = sum(path == self.path for path, _ in self.server.asked) == 1
        end = start + 300_000 if self.path == "/broken" and first_time else len(data)
        self.wfile.write(data[start:end])
        return None


@pytest.fixture
def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(install.time, "sleep", lambda _: None)


def get(web, path: str, target: Path, data: bytes = CONTENT) -> None:
    download(web.url + path, file_of(data), target)


class TestEntries:
    def test_every_entry_reads_and_says_where_from_and_on_what_terms(self):
        entries = load_entries()
        assert {"ict-facekit", "mediapipe", "lfw", "aflw2000-3d", "orl", "surrey", "3ddfa-v2"} <= set(entries)
        for entry in entries.values():
            assert entry.licence and entry.terms and entry.citation and entry.home
            assert bool(entry.sources) != bool(entry.places) == bool(entry.register)

    def test_every_file_has_a_checksum(self):
        """Of 64 digits (SHA-256) or 32 (MD5); or, for an archive, of some files inside."""
        for entry in load_entries().values():
            for source in entry.sources:
                assert source.holds and source.checked
                for file in source.files:
                    inside = source.inside.values() if file.unpack else ()
                    sums = [*inside, *filter(None, (file.sha256, file.md5))]
                    assert sums and {len(value) for value in sums} <= {32, 64}, (entry.name, file.source)

    def test_an_unknown_name_lists_the_known_ones(self):
        with pytest.raises(AssetError, match=r"no asset called 'lwf'.*lfw"):
            load_entry("lwf")
        with pytest.raises(AssetError):
            load_entry("../assets/lfw")

    def test_the_mirror_holds_what_the_entries_say(self, mirror):
        """Sizes only: `get` checks the sums."""
        for entry in load_entries().values():
            for source in entry.sources:
                for file in source.files if source.is_mirror else ():
                    path = mirror / source.base.removeprefix("mirror:") / file.source
                    assert path.stat().st_size == file.size, path


class TestDownload:
    @pytest.mark.parametrize(
        ("path", "beginning"),
        [
            ("whole", b""),
            ("moved", b""),
            ("noresume", CONTENT[:1000]),
            ("whole", b"x" * 5000),  # of another file
            ("whole", b"x" * (len(CONTENT) + 10)),  # longer than the file
        ],
    )
    def test_the_whole_file_whatever_an_earlier_try_left(self, web, tmp_path, path, beginning):
        (tmp_path / "a").write_bytes(beginning)
        get(web, path, tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == CONTENT

    def test_goes_on_where_an_earlier_try_stopped(self, web, tmp_path):
        (tmp_path / "a").write_bytes(CONTENT[:123_456])
        get(web, "whole", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == CONTENT
        assert web.asked == [("/whole", "bytes=123456-")]

    def test_a_broken_transfer_is_resumed(self, web, tmp_path):
        get(web, "broken", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == CONTENT
        start = int(web.asked[1][1].removeprefix("bytes=").removesuffix("-"))
        assert 200_000 < start <= 300_000

    def test_missing_page_names_the_address(self, web, tmp_path):
        with pytest.raises(AssetError, match=r"404 .*/gone"):
            get(web, "gone", tmp_path / "a")

    def test_wrong_checksum_names_both_and_keeps_nothing(self, web, tmp_path):
        with pytest.raises(AssetError, match=sha(CONTENT)):
            get(web, "other", tmp_path / "a")
        assert not (tmp_path / "a").exists()

    def test_no_server_says_how_to_go_on(self, tmp_path):
        with pytest.raises(AssetError, match="Run the same command again"):
            download("http://127.0.0.1:9/x", file_of(CONTENT), tmp_path / "a")


def tar_with(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


class TestUnpack:
    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
    def test_tar(self, tmp_path, mode):
        archive = tar_with(tmp_path / "a.tar", (member("d/x"), b"one"), (member("./y"), b"two"), mode=mode)
        unpack(archive, tmp_path / "out", archive_of("tar"))
        assert (tmp_path / "out/d/x").read_bytes() == b"one" and (tmp_path / "out/y").read_bytes() == b"two"

    @pytest.mark.parametrize("name", ["../evil", "/tmp/facenb-evil", "a/../../evil"])
    @pytest.mark.parametrize("kind", ["tar", "tar without a filter", "zip"])
    def test_nothing_is_written_outside(self, tmp_path, monkeypatch, name, kind):
        """The archive is refused, or the file lies within the folder. Python 3.11.2 has no filter."""
        archive = tmp_path / "a"
        if kind == "tar without a filter":
            monkeypatch.delattr(tarfile, "data_filter", raising=False)
            kind = "tar"
        if kind == "tar":
            tar_with(archive, (member("fine"), b"1"), (member(name), b"2"))
        else:
            with zipfile.ZipFile(archive, "w") as packed:
                packed.writestr(name, b"2")
        with contextlib.suppress(AssetError):
            unpack(archive, tmp_path / "out", archive_of(kind))
        assert {path.name for path in tmp_path.iterdir()} <= {"a", "out"} and not Path("/tmp/facenb-evil").exists()

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
    def test_links_to_the_outside_and_devices_in_a_tar(self, tmp_path, kind):
        archive = tar_with(tmp_path / "a.tar", (member("x", kind, "/etc/passwd"), b""))
        with pytest.raises(AssetError, match="unsafe"):
            unpack(archive, tmp_path / "out", archive_of("tar"))
        assert not (tmp_path / "out").exists()

    def test_a_link_in_a_zip_becomes_no_link(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            info = zipfile.ZipInfo("x")
            info.external_attr = 0o120777 << 16
            packed.writestr(info, "/etc/passwd")
        unpack(tmp_path / "a.zip", tmp_path / "out", archive_of("zip"))
        assert not (tmp_path / "out/x").is_symlink()

    def test_a_bomb_stops_at_the_limit(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("x", bytes(50_000_000))
        assert (tmp_path / "a.zip").stat().st_size < 100_000
        with pytest.raises(AssetError, match="more than 2000000 bytes"):
            unpack(tmp_path / "a.zip", tmp_path / "out", archive_of("zip", 2_000_000))
        assert not (tmp_path / "out").exists()

    def test_a_bomb_that_lies_about_its_size_writes_no_more_than_it_declares(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("x", bytes(50_000_000))
        data = (tmp_path / "a.zip").read_bytes()
        (tmp_path / "a.zip").write_bytes(data.replace((50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
        with pytest.raises(AssetError, match="damaged"):
            unpack(tmp_path / "a.zip", tmp_path / "out", archive_of("zip", 2_000_000))
        assert not (tmp_path / "out/x").exists() or (tmp_path / "out/x").stat().st_size <= 1000

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
    def test_truncated_tar(self, tmp_path, mode):
        archive = tar_with(tmp_path / "a.tar", (member("x"), os.urandom(50_000)), mode=mode)
        archive.write_bytes(archive.read_bytes()[:30_000])
        with pytest.raises(AssetError, match="damaged"):
            unpack(archive, tmp_path / "out", archive_of("tar"))

    def test_truncated_zip_and_something_else(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            packed.writestr("x", os.urandom(5000))
        (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:4000])
        (tmp_path / "b.zip").write_text("<html>please log in</html>")
        for name in ("a.zip", "b.zip"):
            with pytest.raises(AssetError, match=f"{name} is a damaged or unsafe zip"):
                unpack(tmp_path / name, tmp_path / "out", archive_of("zip"))


class TestInstall:
    def test_from_the_mirror_with_unpacking(self, folder, own_mirror):
        archive = tar_with(own_mirror / "thing/a.tar", (member("d/x"), b"one"))
        (own_mirror / "thing/plain").write_bytes(b"two")
        files = (file_of(archive.read_bytes(), "a.tar", unpack="tar", target=""), file_of(b"two", "plain"))
        entry = entry_of(mirror_source(*files))
        assert install.install(entry) == folder / "thing"
        assert (folder / "thing/d/x").read_bytes() == b"one" and not install.problems(entry)
        assert install.verify(entry) == []
        assert subprocess.run(["sha256sum", "-c", "--quiet", "manifest.sha256"], cwd=folder / "thing").returncode == 0

    def test_a_damaged_mirror_is_named_and_leaves_nothing(self, folder, own_mirror):
        (own_mirror / "thing/a.bin").write_bytes(b"x" * len(CONTENT))
        with pytest.raises(AssetError, match=r"mirror/thing/a\.bin has the sha256"):
            install.install(THING)
        assert not (folder / "thing").exists() and not list(folder.glob("*.partial"))

    def test_a_mirror_that_is_no_folder(self, folder, monkeypatch):
        monkeypatch.setenv("FACENB_MIRROR", "/no/such/mirror")
        with pytest.raises(AssetError, match="/no/such/mirror"):
            asset("lfw")

    def test_no_mirror_and_not_here_names_the_command(self, folder):
        with pytest.raises(AssetError, match="python -m data_download get lfw"):
            asset("lfw")

    def test_from_the_web_where_the_mirror_lacks_it(self, folder, web, own_mirror):
        shutil.rmtree(own_mirror / "thing")
        source = Source(web.url, "all", "here", (file_of(CONTENT, "whole"),))
        install.install(entry_of(mirror_source(file_of(b"1")), source))
        assert (folder / "thing/whole").read_bytes() == CONTENT
        assert not list((folder / ".downloads").iterdir())

    def test_the_second_address_where_the_first_is_gone(self, folder, web):
        sources = [Source(web.url, "all", "here", (file_of(CONTENT, name),)) for name in ("gone", "whole")]
        install.install(entry_of(*sources))
        assert (folder / "thing/whole").read_bytes() == CONTENT

    def test_an_archive_without_a_checksum_is_known_by_files_inside(self, folder, web, monkeypatch):
        """The archive of a commit has no checksum of its own."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("commit/model/a.obj", b"one")
        monkeypatch.setattr(sys.modules[__name__], "CONTENT", archive.getvalue())
        source = Source(web.url, "all", "a", (File("whole", "", unpack="zip"),), {"model/a.obj": sha(b"one")})
        assert (install.install(entry_of(source)) / "commit/model/a.obj").read_bytes() == b"one"
        other = dataclasses.replace(source, inside={"model/a.obj": sha(b"two")})
        with pytest.raises(AssetError, match=r"holds no model/a\.obj with the sha256"):
            install.install(entry_of(other, name="other"))
        assert not (folder / "other").exists()

    def test_ready_is_not_fetched_twice_and_again_replaces(self, folder, own_mirror):
        install.install(THING)
        (folder / "thing/a.bin").write_bytes(b"edited")
        install.install(THING)
        assert (folder / "thing/a.bin").read_bytes() == b"edited"
        assert install.verify(THING) == [f"{folder / 'thing/a.bin'} is missing or was changed"]
        install.install(THING, again=True)
        assert install.verify(THING) == []

    def test_a_failed_again_keeps_the_old_folder(self, folder, own_mirror):
        install.install(THING)
        (own_mirror / "thing/a.bin").write_bytes(b"damaged")
        with pytest.raises(AssetError):
            install.install(THING, again=True)
        assert install.verify(THING) == []

    def test_the_old_folder_comes_back_if_the_new_one_cannot_be_renamed(self, folder, own_mirror, monkeypatch):
        def fails_for_the_new_one(source, target, rename=os.rename):
            if source.name == "new":
                raise PermissionError(errno.EACCES, "denied", str(target))
            rename(source, target)

        install.install(THING)
        monkeypatch.setattr(install.os, "rename", fails_for_the_new_one)
        with pytest.raises(AssetError, match="denied"):
            install.install(THING, again=True)
        assert install.verify(THING) == []

    def test_an_entry_that_changed_is_not_ready(self, folder, own_mirror):
        install.install(THING)
        assert install.problems(entry_of(mirror_source(file_of(CONTENT[1:]))))

    def test_files_of_a_person_are_not_overwritten(self, folder, own_mirror):
        (folder / "thing").mkdir(parents=True)
        (folder / "thing/mine").write_text("keep")
        with pytest.raises(AssetError, match="Move them to another"):
            install.install(THING)
        assert (folder / "thing/mine").read_text() == "keep"

    @pytest.mark.parametrize(("code", "says"), [(errno.ENOSPC, "Free some space"), (errno.EACCES, "denied")])
    def test_full_disk_and_no_permission(self, folder, own_mirror, monkeypatch, code, says):
        def fails(*_):
            raise OSError(code, os.strerror(code), "a.bin")

        monkeypatch.setattr(install.shutil, "copyfile", fails)
        with pytest.raises(AssetError, match=f"Cannot write to {folder}: .*{says}"):
            install.install(THING)
        assert not (folder / "thing").exists() and not list(folder.glob(".*.partial"))

    def test_a_data_folder_that_is_a_file(self, tmp_path, own_mirror, monkeypatch):
        (tmp_path / "file").write_text("x")
        monkeypatch.setenv("FACENB_DATA", str(tmp_path / "file" / "data"))
        with pytest.raises(AssetError, match="FACENB_DATA"):
            install.install(THING)

    def test_killed_amid_work_leaves_nothing_that_looks_whole(self, folder, own_mirror):
        """The child dies after its files are written, before the manifest; the next try works and cleans up."""
        child = os.fork()
        if child == 0:
            install._manifest = lambda *_: os._exit(9)
            install.install(THING)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert install.problems(THING) and list(folder.glob(".thing.*.partial"))
        install.install(THING)
        assert install.verify(THING) == [] and not list(folder.glob(".thing.*.partial"))

    def test_two_processes_at_once(self, folder, own_mirror):
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                try:
                    install.install(THING)
                    os._exit(0 if install.verify(THING) == [] else 2)
                finally:
                    os._exit(1)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
        assert install.verify(THING) == [] and not list(folder.glob(".thing.*.partial"))


class TestRegistered:
    ENTRY = dataclasses.replace(entry_of(), register="ask them", places=(Place("sub/*.mat", "labels", 2, 10),))

    def test_says_what_is_missing(self, folder):
        with pytest.raises(AssetError, match=r"sub/\*\.mat: 0 of 2 files are there.*where thing"):
            install.ready_folder(self.ENTRY)

    def test_checks_what_was_placed(self, folder):
        place = folder / "thing/sub"
        place.mkdir(parents=True)
        (place / "a.mat").write_bytes(b"MATLAB 5.0 and more")
        (place / "b.mat").write_bytes(b"MATLAB")
        [problem] = install.verify(self.ENTRY)
        assert "b.mat has fewer than 10 bytes, so it is not labels" in problem
        (place / "b.mat").write_bytes(b"MATLAB 5.0 and more")
        assert install.ready_folder(self.ENTRY) == folder / "thing"


class TestCommand:
    def test_list_where_licence(self, folder, capsys):
        assert main(["list"]) == 0 and "aflw2000-3d" in capsys.readouterr().out
        assert main(["where", "bfm-2009"]) == 0 and "01_MorphableModel.mat" in capsys.readouterr().out
        assert main(["licence", "ict-facekit"]) == 0 and "MIT" in capsys.readouterr().out
        assert main(["licence", "nothing"]) == 1 and "no asset called" in capsys.readouterr().err

    def test_get_and_verify_a_real_asset(self, folder, mirror, monkeypatch, capsys):
        monkeypatch.setenv("FACENB_MIRROR", str(mirror))
        assert main(["get", "orl", "scan-james"]) == 0
        assert main(["verify"]) == 0
        assert "orl: complete" in capsys.readouterr().out
        next((folder / "orl").rglob("1.pgm")).write_bytes(b"x")
        assert main(["verify", "orl"]) == 1 and "NOT complete" in capsys.readouterr().out

    def test_get_of_a_registered_one_fails_and_says_why(self, folder, capsys):
        assert main(["get", "flame-2020"]) == 1
        assert "where flame-2020" in capsys.readouterr().err

    def test_it_runs_as_a_module(self, folder):
        done = subprocess.run([sys.executable, "-m", "data_download", "verify", "lfw"], capture_output=True, text=True)
        assert done.returncode == 1 and "NOT complete" in done.stdout


def test_asset_takes_from_the_mirror_and_keeps_what_it_has(folder, mirror, monkeypatch):
    monkeypatch.setenv("FACENB_MIRROR", str(mirror))
    path = asset("astronaut")
    monkeypatch.delenv("FACENB_MIRROR")
    assert (path / "astronaut.png").is_file() and asset("astronaut") == path == folder / "astronaut"


class TestFolders:
    def test_a_tilde_is_the_home_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("FACENB_DATA", "~/data")
        assert folders.data_folder() == tmp_path / "data"

    def test_a_relative_path_stays_the_same_folder(self, monkeypatch, tmp_path):
        """In this process after a change of directory, and in a child process elsewhere."""
        monkeypatch.setenv("FACENB_DATA", "data")
        monkeypatch.chdir(tmp_path)
        assert folders.data_folder() == tmp_path / "data"
        monkeypatch.chdir("/")
        assert folders.data_folder() == tmp_path / "data"
        code = "from data_download.folders import data_folder; print(data_folder())"
        child = [sys.executable, "-c", code]
        variables = os.environ | {"PYTHONPATH": str(Path(install.__file__).parents[1])}
        assert subprocess.check_output(child, text=True, env=variables).strip() == str(tmp_path / "data")

    def test_an_unknown_user_behind_a_tilde(self, monkeypatch):
        monkeypatch.setenv("FACENB_DATA", "~nobody-of-this-name/data")
        with pytest.raises(AssetError, match="FACENB_DATA is ~nobody-of-this-name/data"):
            folders.data_folder()

    def test_without_a_home_folder(self, monkeypatch, tmp_path):
        monkeypatch.delenv("FACENB_DATA", raising=False)
        monkeypatch.setattr(folders.tempfile, "gettempdir", lambda: str(tmp_path))
        monkeypatch.setattr(folders.os.path, "expanduser", lambda path: path)
        assert folders.data_folder() == tmp_path / f"facenb-{os.getuid()}" / "data"

    @pytest.mark.parametrize("filled", [False, True])
    def test_a_read_only_home(self, monkeypatch, tmp_path, filled):
        """Data that an administrator put there are used. Without them, a temporary folder is."""
        monkeypatch.delenv("FACENB_DATA", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr(folders.os, "access", lambda *_: False)
        cache = tmp_path / "home/.cache/facenb"
        (cache if filled else tmp_path / "home").mkdir(parents=True)
        assert (folders.data_folder() == cache / "data") == filled
