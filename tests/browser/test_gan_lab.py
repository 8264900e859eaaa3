"""The GAN lab and the scrubber in real JupyterLab, driven by headless Chromium."""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
import torch

from course_lib.scrubber import Scrubber

ROOT = Path(__file__).parents[2]
CELLS = (
    """\
from course_lib.gan_lab_widget import GANLab
lab = GANLab()
lab""",
    """\
import torch
from course_lib.scrubber import Scrubber
run = Scrubber("A run")
def record(step):
    bright = torch.full((8, 1, 28, 28), step / 50 - 1)
    run.record(step, bright, loss_d=1 / (step + 1), loss_g=step, coverage=step)
for step in (0, 10, 20):
    record(step)
run""",
    "record(30)",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory, chromium):
    """A notebook with one lab, opened and run; `page.problems` gathers the console."""
    home = tmp_path_factory.mktemp("jupyter")
    work = home / "work"
    work.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, CELLS)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, work / "lab.ipynb")
    settings = home / "settings" / "@jupyterlab"
    (settings / "notebook-extension").mkdir(parents=True)
    tracker = settings / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.write_text(json.dumps({"windowingMode": "none"}))
    (settings / "apputils-extension").mkdir()
    news = settings / "apputils-extension" / "notification.jupyterlab-settings"
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    environment.pop("COURSE_HEADLESS", None)  # here somebody looks
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token="]
    log = (home / "server.log").open("w")
    server = subprocess.Popen(
        command, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/api/status", server)
        page = chromium.new_page(viewport={"width": 1440, "height": 1250})
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda line: _note(page.problems, line))
        page.goto(f"{address}/lab/tree/lab.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
        page.get_by_text("| Idle").wait_for(timeout=120_000)
        page.locator(".jp-Notebook .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_selector(".plane-picture[data-frame]", timeout=120_000)
        yield page
        page.close()
    finally:
        server.terminate()
        server.wait(timeout=20)
        log.close()


def _note(problems, line):
    if line.type == "error":
        problems.append(line.text)


def _wait_for(address, server):
    for _ in range(300):
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with {server.returncode}")
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("JupyterLab did not answer in a minute")


def frame(page):
    return int(page.locator(".plane-picture").get_attribute("data-frame"))


def pixels(page):
    return page.locator(".plane-picture").evaluate("c => c.toDataURL()")


def press(page, name):
    page.locator("button.jupyter-button", has_text=name).first.click()


def alt(page):
    return page.locator(".plane-picture").get_attribute("aria-label")


def shoot(page, name):
    """A screenshot for people, where `COURSE_SCREENSHOTS` names a folder."""
    folder = os.environ.get("COURSE_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"gan_lab_{name}.png")


def test_a_prediction_comes_first_then_it_trains_and_tells_what_was_measured(page):
    shoot(page, "start")
    press(page, "Train")
    page.get_by_text("First say what you expect.").wait_for()
    page.get_by_label("7 or 8").check()
    before = pixels(page)
    press(page, "Train")
    page.wait_for_function(
        "Number(document.querySelector('.plane-picture').dataset.frame) > 5"
    )
    shoot(page, "training")
    page.get_by_text("Not as you expected").wait_for(timeout=120_000)
    page.locator("button.jupyter-button", has_text="Train").wait_for()
    shoot(page, "told")
    assert pixels(page) != before
    assert "step 1200" in alt(page)
    assert page.problems == []


def test_pause_stops_the_pictures_and_a_slider_answers_quickly(page):
    press(page, "healthy")
    page.get_by_text("Both learn at one rate").wait_for()
    page.wait_for_function("!document.querySelector('input[type=radio]:checked')")
    page.get_by_label("7 or 8").check()
    press(page, "Train")
    page.wait_for_timeout(600)
    press(page, "Pause")
    page.locator("button.jupyter-button", has_text="Train").wait_for()
    page.wait_for_timeout(300)
    stopped, step = frame(page), alt(page)
    page.wait_for_timeout(500)
    assert frame(page) == stopped and alt(page) == step

    handle = page.locator(".widget-hslider", has_text="Seed").locator(".noUi-handle")
    handle.focus()
    times = []
    for key in ["ArrowRight", "ArrowLeft"] * 8:
        old = pixels(page)
        times.append(page.evaluate(MEASURE, key))
        assert pixels(page) != old
    median = statistics.median(times)
    print(f"\nslider to picture: median {median:.0f} ms of {len(times)} moves")
    assert median < 1000, times  # a slow machine is not a broken widget
    assert page.problems == []


# Press a key on the slider that has the focus; ms until another picture is painted.
MEASURE = """
async (key) => {
  const canvas = document.querySelector(".plane-picture");
  const start = performance.now();
  const painted = new Promise((done) => {
    const watch = new MutationObserver(() => {
      watch.disconnect();
      requestAnimationFrame(() => done(performance.now() - start));
    });
    watch.observe(canvas, { attributes: true, attributeFilter: ["data-frame"] });
  });
  document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  return await painted;
}
"""


def test_points_are_put_by_keyboard_and_by_mouse(page):
    page.get_by_label("Data", exact=True).select_option("drawn by hand")
    page.get_by_text("There is nothing to learn yet").wait_for()
    board = page.locator(".plane-board")
    board.focus()
    for key in ("ArrowRight", "ArrowRight", "Space", "Shift+ArrowUp", "Space"):
        page.keyboard.press(key)
    page.wait_for_function(
        "document.querySelector('.plane-picture').getAttribute('aria-label')"
        ".startsWith('GAN in the plane')"
    )
    box = board.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 90, steps=20)
    page.mouse.up()
    press(page, "Train")
    page.wait_for_timeout(3000)
    press(page, "Pause")
    page.wait_for_timeout(300)
    shoot(page, "drawn")
    assert "step 0." not in alt(page)
    assert page.problems == []


# --- the scrubber


def test_the_scrubber_moves_by_keyboard_and_follows_a_training_run(page):
    page.locator(".jp-Notebook .cm-content").nth(1).click()
    page.keyboard.press("Shift+Enter")
    picture = page.locator(".scrubber img")
    picture.wait_for(timeout=60_000)
    assert "step 20" in picture.get_attribute("alt")
    page.locator(".jp-Notebook .cm-content").nth(2).click()
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(
        "document.querySelector('.scrubber img').alt.includes('step 30')"
    )
    slider = page.locator(".scrubber input")
    slider.scroll_into_view_if_needed()
    shoot(page, "scrubber")
    latest = picture.get_attribute("src")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert "step 10: 8 images" in picture.get_attribute("alt")
    assert picture.get_attribute("src") != latest
    assert slider.get_attribute("aria-valuetext") == "step 10"
    assert page.problems == []


def test_the_exported_scrubber_works_with_no_kernel_and_no_network(page, tmp_path):
    run = Scrubber("Exported")
    for step in range(4):
        images = torch.full((8, 1, 28, 28), step / 2 - 1)
        run.record(step, images, loss_d=4 - step, loss_g=step)
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html><title>t</title>{run.to_html()}", "utf-8")
    problems = []
    context = page.context.browser.new_context(offline=True)
    alone = context.new_page()
    alone.on("pageerror", lambda error: problems.append(str(error)))
    alone.on("console", lambda line: _note(problems, line))
    alone.goto(path.as_uri())
    inside = alone.frame_locator("iframe")
    picture, slider = inside.locator("img"), inside.locator("input")
    assert "Exported, step 3" in picture.get_attribute("alt")
    slider.focus()
    times = [slider.evaluate(SCRUB, step) for step in (0, 3, 1, 2) * 8]
    median = statistics.median(times)
    print(f"\nscrubber to picture: median {median:.1f} ms of {len(times)} moves")
    assert median < 200, times
    alone.keyboard.press("ArrowLeft")
    assert "step 1" in picture.get_attribute("alt")
    inside.get_by_role("button", name="Play").click()
    inside.get_by_role("button", name="Stop").wait_for()
    inside.get_by_role("button", name="Play").wait_for()
    assert "step 3" in picture.get_attribute("alt")
    assert problems == []
    context.close()


# Move the slider to a frame; ms until its picture is decoded and can be painted.
SCRUB = """
async (slider, step) => {
  const start = performance.now();
  slider.value = step;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  await slider.closest(".scrubber").querySelector("img").decode();
  return performance.now() - start;
}
"""
