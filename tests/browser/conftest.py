"""A real JupyterLab and a real browser, shared by all tests of this folder.

Run by `python -m course_lib test --only browser`. Screenshots go to the folder that
`COURSE_SCREENSHOTS` names, else to pytest's temporary one. Without Playwright or
Chromium every test here is skipped, and says which of the two is missing.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import papermill
import pytest

from course_lib import notebooks, pages, sources

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
SETTINGS = {
    # off-screen outputs would not exist
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
QUIET = ("favicon", "ResizeObserver loop")  # what JupyterLab itself says


def find_chromium() -> str | None:
    """A Chromium of the system, or the one that Playwright has fetched."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("COURSE_CHROMIUM") or next(
        filter(None, map(shutil.which, names)), None
    )


@pytest.fixture(scope="session")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing")
    path = find_chromium()
    with api.sync_playwright() as playwright:
        if path is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip(
                "no Chromium: install Debian's `chromium`, run `python -m playwright "
                "install chromium`, or name one in COURSE_CHROMIUM"
            )
        browser = playwright.chromium.launch(
            executable_path=path, args=FLAGS.split(), timeout=60_000
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory):
    wanted = os.environ.get("COURSE_SCREENSHOTS")
    folder = Path(wanted) if wanted else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Watched:
    """A page that remembers what its console complained of."""

    def __init__(self, page):
        self.page, self.complaints = page, []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _on_console(self, message):
        text = f"{message.text} ({message.location.get('url', '')})"
        if message.type == "error" and not any(quiet in text for quiet in QUIET):
            self.complaints.append(text)


@pytest.fixture
def open_page(chromium):
    """open_page(**options) -> Watched; the test fails if its console was not clean."""
    opened = []

    def open_one(**options):
        view = {"width": 1280, "height": 1000} | options.pop("viewport", {})
        context = chromium.new_context(viewport=view, **options)
        watched = Watched(context.new_page())
        watched.page.set_default_timeout(60_000)
        opened.append((context, watched))
        return watched

    yield open_one
    for context, _ in opened:
        context.close()
    assert [text for _, watched in opened for text in watched.complaints] == []


# --- JupyterLab


@pytest.fixture(scope="session")
def lab(tmp_path_factory, chromium):
    """The address of a JupyterLab on copies of the student lessons, as a person has."""
    home = tmp_path_factory.mktemp("lab")
    lessons = home / "lessons"
    lessons.mkdir()
    for lesson in notebooks.lessons():
        made = notebooks.student(sources.read_source(lesson.source))
        sources.write(lessons / lesson.student.name, made)
    settings = home / "settings" / "@jupyterlab"
    for name, values in SETTINGS.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "COURSE_BUDGET": "smoke",
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": str(sources.ROOT),
    }
    environment.pop("COURSE_HEADLESS", None)  # here somebody looks
    environment.pop("COURSE_DATA", None)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and not os.geteuid() else []
    command += ["--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token="]
    command += ["--expose-app-in-browser", f"--ServerApp.root_dir={lessons}"]
    command += ["--LabApp.news_url=", "--ServerApp.disable_check_xsrf=True"]
    address = f"http://127.0.0.1:{port}"
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=lessons, env=environment, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > until:
                    text = (home / "log").read_text("utf-8")[-3000:]
                    pytest.fail(f"JupyterLab did not start:\n{text}")
                time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


RUN_ALL = """async () => {
  const app = window.jupyterapp;
  const panel = app.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  const late = new Promise((_, no) => setTimeout(() => no(Error("too long")), 300000));
  await Promise.race([app.commands.execute("notebook:run-all-cells"), late]);
  return panel.content.widgets.filter((c) => c.model.type === "code")
    .flatMap((c) => c.model.outputs.toJSON())
    .filter((o) => o.output_type === "error").map((o) => `${o.ename}: ${o.evalue}`);
}"""


@pytest.fixture
def open_lesson(lab, open_page):
    """open_lesson("00") -> the page of that student lesson after Run All Cells."""
    opened = []

    def open_one(number):
        (lesson,) = sources.select([number], sources.ROOT)
        watched = open_page()
        page = watched.page
        page.goto(f"{lab}/lab/tree/{lesson.student.name}?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function("() => window.jupyterapp.shell.currentWidget?.context")
        opened.append(page)
        assert page.evaluate(RUN_ALL) == []
        return page

    yield open_one
    for page in opened:
        page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


# --- the pages of `run`


@pytest.fixture(scope="session")
def site(tmp_path_factory, chromium):
    """site("01") -> the page that `run` makes of the lesson at budget smoke."""
    folder = tmp_path_factory.mktemp("site")
    made = {}

    def write(number):
        if number not in made:
            (lesson,) = sources.select([number], sources.ROOT)
            source = folder / "sources" / lesson.notebook.name
            sources.write(source, sources.read_source(lesson.source))
            output = folder / lesson.notebook.name
            before = {k: os.environ.get(k) for k in ("COURSE_PAGES", "COURSE_HEADLESS")}
            os.environ |= dict.fromkeys(before, "1")
            try:
                papermill.execute_notebook(
                    source,
                    output,
                    {"budget": "smoke"},
                    kernel_name="python3",
                    progress_bar=False,
                    cwd=folder,
                    store_widget_state=False,
                )
            finally:
                for name, value in before.items():
                    os.environ.pop(name)
                    os.environ |= {} if value is None else {name: value}
            pages.write_site(folder, [{"lesson": lesson.name}])
            made[number] = folder / f"{lesson.name}.html"
        return made[number]

    return write


# --- how fast


MEDIANS: dict[str, float] = {}


@pytest.fixture
def note_latency(screenshots):
    """note_latency(name, milliseconds): the median, for the table at the end."""

    def note(name, times):
        MEDIANS[name] = sorted(times)[len(times) // 2]
        text = json.dumps(MEDIANS, indent=1)
        (screenshots / "latency.json").write_text(text, "utf-8")
        return MEDIANS[name]

    return note


def pytest_terminal_summary(terminalreporter):
    if MEDIANS:
        terminalreporter.section("from a move to its picture, median")
        for name, median in MEDIANS.items():
            terminalreporter.write_line(f"{median:8.1f} ms  {name}")
