"""Shared fixtures; shapes and types in the library's signatures are checked while the tests run."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

LIBRARY = Path(__file__).resolve().parents[1] / "facenb"
# Not the numba kernels: numba compiles a function's own code, which a wrapper would hide.
CHECKED = [path for path in LIBRARY.rglob("*.py") if path.stem != "__init__" and not path.stem.endswith("_numba")]
install_import_hook(
    [".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts) for path in CHECKED], "typecheck.check"
)


def mirror_folder() -> Path | None:
    """FACENB_MIRROR, or the folder `shared/mirror` beside the checkout."""
    folder = Path(os.environ.get("FACENB_MIRROR") or Path(__file__).resolve().parents[2] / "shared" / "mirror")
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder of real data and released networks; the test is skipped, by name, where there is none."""
    folder = mirror_folder()
    if folder is None:
        pytest.skip("needs the mirror folder of real data: set FACENB_MIRROR")
    return folder


@pytest.fixture(scope="session")
def ict(mirror):
    """The head of ICT-FaceKit."""
    from facenb.morphable.formats import read_ict

    return read_ict(mirror / "ict-facekit" / "ict_face_head_11248.npz")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """One data folder for all tests of a run, shared by its workers: what is unpacked there is unpacked once."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "facenb-data"


@pytest.fixture(scope="session")
def jaw_model():
    """A small SynthFace model whose jaw is a joint."""
    from facenb.synthface import build_model, with_jaw

    return with_jaw(build_model(people=8, components=4, albedo_components=3))


@pytest.fixture(scope="session")
def stage(jaw_model):
    """DECA's scene for the face and the landmarks of that model."""
    from facenb.methods.deca.scene import Stage
    from facenb.morphable.mesh import cut, landmark_vertices
    from facenb.networks.deca import layout_of

    kept = torch.cat([jaw_model.regions["face"], landmark_vertices(jaw_model)])
    return Stage.of(cut(jaw_model, kept), layout_of(jaw_model))


@pytest.fixture
def real_asset(mirror, data_folder, monkeypatch):
    """`asset(name)` from the mirror, in a data folder that belongs to the tests."""
    from facenb.assets import asset

    monkeypatch.setenv("FACENB_MIRROR", str(mirror))
    monkeypatch.setenv("FACENB_DATA", str(data_folder))
    return asset
