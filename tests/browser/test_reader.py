"""The reader study in real JupyterLab: a whole study by keyboard, in headless Chromium.

The "reader" looks at the pixels on the screen, since nothing else could tell it.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]

TRIALS = 8
SETUP = f"""
import numpy as np
from course_lib.reader_study import make_study
from course_lib.reader_widget import ReaderStudy

rng = np.random.default_rng(0)
noise = rng.integers(0, 120, (2, 20, 1, 16, 16)).astype(np.uint8)
dark, bright = noise[0], noise[1] + np.uint8(120)
viewers = {{
    kind: ReaderStudy(*make_study(dark, bright, {TRIALS}, kind, seed=1))
    for kind in ("rating", "2afc")
}}
"""
LOOK = """
for kind, viewer in viewers.items():
    print("ANSWERED", kind, list(viewer.answers.given), viewer.result().right)
    print("SECONDS", kind, [float(s) for s in viewer.answers.seconds])
"""
MEAN = """image => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [16, 16];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 16, 16);
  const {data} = context.getImageData(0, 0, 16, 16);
  return data.filter((_, i) => i % 4 === 0).reduce((a, b) => a + b) / 256;
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab of its own, with one notebook in it."""
    home = tmp_path_factory.mktemp("lab")
    cells = [SETUP, 'viewers["rating"]', 'viewers["2afc"]', LOOK]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(x.strip()) for x in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    (home / "work").mkdir()
    nbformat.write(notebook, home / "work" / "reader.ipynb")
    settings = {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {
            "fetchNews": "false",
            "checkForUpdates": False,
        },
    }
    for name, values in settings.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str(home / "ipython"),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("COURSE_HEADLESS", None)  # a person looks at this one
    command = f"""-m jupyter lab --no-browser --ip=127.0.0.1 --port={port}
    --IdentityProvider.token= --expose-app-in-browser --allow-root
    --ServerApp.root_dir={home / "work"}""".split()
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).read()
                break
            except OSError:
                assert server.poll() is None, (home / "log").read_text()[-2000:]
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def page(lab, chromium):
    """The notebook with both widgets alive; what the console says is in `.faults`."""
    page = chromium.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(90_000)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda m: m.type == "error" and page.faults.append(m.text))
    page.goto(f"{lab}/lab/tree/reader.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_selector(".jp-NotebookPanel-toolbar >> text=Python 3")
    page.wait_for_function("window.jupyterapp !== undefined")
    run(page, 0), run(page, 1), run(page, 2)
    page.wait_for_function("document.querySelectorAll('.course-reader').length === 2")
    yield page
    page.close()


def run(page, cell):
    """Execute one cell of the notebook, as Shift-Enter would."""
    page.evaluate(
        """async cell => {
          const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
          notebook.activeCellIndex = cell;
          notebook.deselectAll();
          await app.shell.currentWidget.sessionContext.ready;
          await app.commands.execute("notebook:run-cell");
        }""",
        cell,
    )


def looks(reader):
    """Mean grey of each image on the screen, left to right."""
    reader.locator("img").first.wait_for()
    return [image.evaluate(MEAN) for image in reader.locator("img").all()]


def plain(html):
    """The DOM without what must change: the trial's number, progress, blob names."""
    html = re.sub(r"blob:[^\"]+", "BLOB", html)
    return re.sub(r"Trial \d+|value=\"\d+\"", "N", html)


@pytest.mark.parametrize("kind", ["rating", "2afc"])
def test_a_whole_study_is_answered_by_keyboard_alone(page, kind, tmp_path):
    reader = page.locator(".course-reader").nth(["rating", "2afc"].index(kind))
    reader.scroll_into_view_if_needed()
    reader.focus()
    assert reader.locator("img").count() == 0  # nothing is seen before the clock runs
    width = reader.evaluate("node => getComputedStyle(node).outlineWidth")
    assert width == "3px"
    page.keyboard.press("Space")
    doms = set()
    for trial in range(TRIALS):
        page.wait_for_function(
            "([node, text]) => node.textContent.includes(text) "
            "&& node.querySelector('img') && !node.querySelector('button:disabled')",
            arg=[reader.element_handle(), f"Trial {trial + 1} of {TRIALS}"],
        )
        seen = looks(reader)
        doms.add(plain(reader.evaluate("node => node.outerHTML")))
        if trial == 2:
            page.keyboard.press("p")
            assert reader.locator("img").count() == 0
            page.keyboard.press("1" if kind == "rating" else "ArrowLeft")
            page.wait_for_timeout(3000)
            assert "clock stands still" in reader.inner_text()
            page.keyboard.press("Space")
            assert looks(reader) == seen
            page.wait_for_function(
                "node => !node.querySelector('button:disabled')",
                arg=reader.element_handle(),
            )
        if trial == 3:
            page.screenshot(path=shot(tmp_path, f"reader-{kind}.png"))
        if kind == "rating":
            page.keyboard.press("5" if seen[0] > 120 else "1")
        else:
            page.keyboard.press("ArrowLeft" if seen[0] > seen[1] else "ArrowRight")
    assert len(doms) == 1, "the page of one trial differs from that of another"
    (dom,) = doms
    assert not re.search(r"\.png|\.jpg|data-truth|fake", dom)
    page.wait_for_function(
        "node => node.textContent.includes('All trials are answered')",
        arg=reader.element_handle(),
    )
    show = page.get_by_role("button", name="Show my result").nth(
        ["rating", "2afc"].index(kind)
    )
    from playwright.sync_api import expect  # there, since a page is

    expect(show).to_be_enabled()
    page.keyboard.press("Tab")
    assert show.evaluate("node => node === document.activeElement")
    page.keyboard.press("Enter")
    page.get_by_text("This reader told real from generated").nth(
        ["rating", "2afc"].index(kind)
    ).wait_for()
    page.screenshot(path=shot(tmp_path, f"reader-{kind}-result.png"))


def test_the_answers_arrived_in_python_with_their_times(page):
    run(page, 3)
    page.get_by_text("SECONDS 2afc").wait_for()
    text = page.locator(".jp-OutputArea-output").all_inner_texts()[-1]
    found = dict(re.findall(r"ANSWERED (\S+) (.*)", text))
    assert found["rating"].endswith("] 1.0") and found["2afc"].endswith("] 1.0")
    assert sorted(json.loads(found["rating"][:-4])) == [1] * 4 + [5] * 4
    assert sorted(json.loads(found["2afc"][:-4])) == [1] * 4 + [2] * 4
    for _, seconds in re.findall(r"SECONDS (\S+) (.*)", text):
        seconds = json.loads(seconds)
        assert len(seconds) == TRIALS and min(seconds) > 0
        assert seconds[2] < 3.0  # the pause of 3 s does not count


def test_keys_of_the_study_do_nothing_else_and_the_console_is_clean(page):
    kinds = page.evaluate(
        """() => window.jupyterapp.shell.currentWidget.content.widgets
             .map(cell => cell.model.type)"""
    )
    assert kinds == ["code"] * 4  # the key 1 would make a heading of a cell
    assert page.faults == []


def shot(folder, name):
    """Where a screenshot goes: COURSE_SCREENSHOTS, or a folder of this run."""
    return Path(os.environ.get("COURSE_SCREENSHOTS") or folder) / name
