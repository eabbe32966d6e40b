"""The report of a run in a real browser: it asks for nothing, and fits wide and narrow windows."""

import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from facenb.evaluation.claims import Claim, mean_of
from facenb.runs.notebook import run_notebook
from facenb.runs.papers import COMPARISONS
from facenb.runs.report import write_page
from facenb.runs.results import Run

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Notebook 17 on a run folder with every table filled, a verdict of each kind, and a figure."""
    folder = tmp_path_factory.mktemp("runs") / "quick-synthetic"
    run = Run("09_ablation", folder=str(folder))
    for comparison in (comparison for section in COMPARISONS.values() for comparison in section):
        for metrics in comparison.metrics.values():
            for method in comparison.methods[:2] or ("mean face", "a method with a name that is long"):
                facts = {"experiment": comparison.experiment, "protocol": comparison.protocols[0], "data": "SynthFace"}
                run.record(metrics[0], 12.34, "mm", method=method, interval=(11.11, 13.13), **facts)
    people = np.random.default_rng(0).normal(size=40)
    for name, mean in (("L1", 2.0), ("L2", -2.0), ("L3", 0.0)):
        effect = mean_of(people - people.mean() + mean, range(40), draws=500)
        run.claim(Claim(name, "a sentence that is long enough to be broken", effect, "mm"), experiment="a", data="b")
    run.figure(plt.figure(figsize=(9, 3)), "09_arms")
    run_notebook(ROOT / "notebooks/17_report.ipynb", {}, folder)
    return write_page(folder)


@pytest.mark.parametrize("width", [1200, 400])
def test_it_fits_the_window(browser, page, width):
    """Only tables may be wider than the window, and scroll by themselves."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    assert browser.execute_script("return window.innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    cut = browser.execute_script(
        "return [...document.querySelectorAll('p, h1, h2, h3, li, img, pre')].filter(e => "
        "e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert cut == []


def test_it_asks_for_nothing_and_shows_its_figure(browser, page):
    browser.get_log("performance")
    browser.get(page.as_uri())
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert {url for url in asked if not url.startswith(("data:", "about:"))} == {page.as_uri()}
    assert browser.execute_script("return document.images[0].naturalWidth") > 300
    if folder := os.environ.get("FACENB_SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/report.png")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
