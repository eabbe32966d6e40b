"""In JupyterLab, in a real browser: run notebook 01, see the face drawn in 3D, move a slider, see it change.

`FACENB_SCREENSHOTS=folder` keeps the pictures.
"""

import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks/01_morphable_model.ipynb"
pytestmark = pytest.mark.slow


def wait_for(what: str, ready: Callable, seconds: float = 60):
    """Return the first true value of `ready()`; what it raises meanwhile counts as not yet."""
    from selenium.webdriver.support.wait import WebDriverWait

    wait = WebDriverWait(None, seconds, poll_frequency=0.2, ignored_exceptions=(Exception,))
    return wait.until(lambda _: ready(), f"waited in vain for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """JupyterLab on a copy of the notebook, with folders and a token of its own; gives the notebook's address."""
    folder = tmp_path_factory.mktemp("lab")
    work = folder / "work"
    work.mkdir()
    shutil.copy(NOTEBOOK, work / "notebook.ipynb")
    settings = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},  # cells off the screen exist too
    }
    for name, values in settings.items():
        path = folder / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    variables = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
        "FACENB_RUNS": "runs",
    }
    environment = {name: value for name, value in os.environ.items() if name != "FACENB_HEADLESS"}
    environment |= {name: str(folder / value) for name, value in variables.items()} | {"FACENB_PROFILE": "smoke"}
    port, token = free_port(), secrets.token_hex(16)
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--ip=127.0.0.1",
                f"--port={port}",
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={token}",
                f"--ServerApp.root_dir={work}",
                "--LabApp.expose_app_in_browser=True",
            ],
            cwd=work,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:

        def up() -> bool:
            assert server.poll() is None, (folder / "lab.log").read_text()[-3000:]
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True

        wait_for("JupyterLab", up)
        yield f"http://127.0.0.1:{port}/lab/tree/notebook.ipynb?token={token}"
    finally:
        server.terminate()  # with its kernels
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()


def picture(element) -> np.ndarray:
    """What is seen of an element: height x width x 3, 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")).astype(int)


def colours(image: np.ndarray) -> int:
    return len(np.unique(image.reshape(-1, 3), axis=0))


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Share of pixels that differ visibly."""
    return float((np.abs(before - after).max(axis=2) > 8).mean()) if before.shape == after.shape else 0.0


def settled(element, seconds: float = 20) -> np.ndarray:
    """The picture once two in a row are alike: fonts, layout and the first frames come late."""
    last = picture(element)

    def still():
        nonlocal last
        time.sleep(0.4)
        before, last = last, picture(element)
        return before.shape == last.shape and changed(before, last) == 0

    wait_for("the view to stand still", still, seconds)
    return last


RUN_ALL = """
const done = arguments[0];
const app = window.jupyterapp;
const panel = app.shell.currentWidget;
panel.context.ready
  .then(() => panel.sessionContext.ready)
  .then(() => app.commands.execute('notebook:run-all-cells'))
  .then(() => {
    const cells = [...panel.content.widgets].filter(cell => cell.model.type === 'code');
    const errors = cells.flatMap(cell => cell.model.outputs.toJSON()).filter(output => output.output_type === 'error');
    done({cells: cells.length, run: cells.filter(cell => cell.model.executionCount).length,
          errors: errors.map(error => error.ename + ': ' + error.evalue)});
  })
  .catch(error => done({errors: ['' + error]}));
"""

# The first output that holds both a 3D canvas and sliders.
FIND = """
const areas = [...document.querySelectorAll('.jp-Notebook .jp-OutputArea-output')];
return areas.find(area => area.querySelector('canvas') && area.querySelector('.noUi-handle')) || null;
"""


def test_a_face_is_drawn_and_follows_a_slider(browser, lab, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    keep = Path(os.environ.get("FACENB_SCREENSHOTS") or tmp_path)
    keep.mkdir(parents=True, exist_ok=True)
    browser.get(lab)
    opened = "const at = window.jupyterapp?.shell?.currentWidget; return !!(at?.content?.widgets?.length)"
    wait_for("the notebook to open", lambda: browser.execute_script(opened))
    ran = browser.execute_async_script(RUN_ALL)
    browser.save_screenshot(str(keep / "after_run_all.png"))
    assert ran["errors"] == [], ran["errors"]
    assert ran["run"] == ran["cells"] > 0

    area = wait_for("a 3D view with sliders", lambda: browser.execute_script(FIND))
    canvas = area.find_element(By.CSS_SELECTOR, "canvas")
    handle = area.find_element(By.CSS_SELECTOR, ".noUi-handle")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    wait_for("the face to be drawn", lambda: colours(picture(canvas)) > 300)
    before = settled(canvas)
    Image.fromarray(before.astype(np.uint8)).save(keep / "before.png")

    # A view that changes on its own, or that only scrolling moved, would pass what follows: it must stand still.
    assert changed(before, picture(canvas)) == 0

    # By the keyboard, since the slider may lie outside the window; the canvas stays where it is.
    value = float(handle.get_attribute("aria-valuenow"))
    browser.execute_script("arguments[0].focus({preventScroll: true})", handle)
    keys = ActionChains(browser)
    for _ in range(12):
        keys.send_keys("\ue014")  # arrow to the right
    keys.perform()
    wait_for("the slider to move", lambda: float(handle.get_attribute("aria-valuenow")) != value)
    wait_for("the face to change", lambda: changed(before, picture(canvas)) > 0.005)
    after = settled(canvas)
    Image.fromarray(after.astype(np.uint8)).save(keep / "after.png")
    assert colours(after) > 300
    assert changed(before, after) > 0.005
