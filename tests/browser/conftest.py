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
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from course_lib import notebooks, sources

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
SETTINGS = {
    # off-screen outputs would not exist
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
QUIET = (  # what JupyterLab itself says
    "favicon",
    "ResizeObserver loop",
)
PATIENCE = 300  # seconds; a slow machine is not a broken widget


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
            executable_path=path, args=FLAGS.split(), timeout=1000 * PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory):
    wanted = os.environ.get("COURSE_SCREENSHOTS")
    folder = Path(wanted) if wanted else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- pages, and what their consoles say


class Watched:
    """A page that remembers what its console complained of."""

    def __init__(self, page):
        self.page, self.complaints = page, []
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._note(str(error)))

    def _on_console(self, message):
        if message.type == "error":
            self._note(f"{message.text} ({message.location.get('url', '')})")

    def _note(self, text):
        if not any(quiet in text for quiet in QUIET):
            self.complaints.append(text)


WATCHED: list[Watched] = []  # every page that is open


def new_page(chromium, **options):
    view = {"width": 1280, "height": 1000} | options.pop("viewport", {})
    context = chromium.new_context(viewport=view, **options)
    WATCHED.append(Watched(context.new_page()))
    return WATCHED[-1]


@pytest.fixture(autouse=True)
def clean_console():
    """A test fails if the console of one of its pages was not clean."""
    yield
    said = [text for watched in WATCHED for text in watched.complaints]
    WATCHED[:] = [x for x in WATCHED if not x.page.is_closed()]
    for watched in WATCHED:
        watched.complaints.clear()
    assert not said, "\n".join(said)


@pytest.fixture
def open_page(chromium):
    """open_page(**options of a context) -> Watched, closed after the test."""
    opened = []

    def open_one(**options):
        opened.append(new_page(chromium, **options))
        return opened[-1]

    yield open_one
    for watched in opened:
        watched.page.context.close()


# --- JupyterLab


class Lab(NamedTuple):
    """The address of a JupyterLab, and the folder that it shows."""

    address: str
    folder: Path


@pytest.fixture(scope="session")
def lab(tmp_path_factory, chromium):
    """One JupyterLab on copies of the student lessons, as a person has."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "lessons"
    folder.mkdir()
    (folder / ".course.json").write_text("{}", "utf-8")  # as `lab` marks it
    for lesson in notebooks.lessons():
        made = notebooks.student(sources.read_source(lesson.source))
        sources.write(folder / lesson.student.name, made)
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[
            1
        ]  # where it is taken meanwhile, Jupyter tries others
    environment = os.environ | {
        "COURSE_BUDGET": "smoke",
        "IPYTHONDIR": str(home / "ipython"),
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
    command += ["--expose-app-in-browser", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.news_url=", "--ServerApp.disable_check_xsrf=True"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        yield Lab(wait_for_server(server, home), folder)
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def wait_for_server(server, home):
    """Its address, when it listens: the server then says in a file where."""
    until = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < until:
        for path in (home / "runtime").glob("jpserver-*.json"):
            try:
                return json.loads(path.read_text("utf-8"))["url"].rstrip("/")
            except ValueError:
                pass  # half of it is written
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{(home / 'log').read_text()[-3000:]}")


# Runs all cells; their errors.
RUN = """async () => {
  const { shell, commands } = window.jupyterapp, panel = shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  const notebook = panel.content;
  const code = notebook.widgets.filter((cell) => cell.model.type === "code");
  await commands.execute("notebook:run-all-cells");
  return code.flatMap((cell) => cell.model.outputs.toJSON())
    .filter((o) => o.output_type === "error").map((o) => `${o.ename}: ${o.evalue}`);
}"""


@pytest.fixture(scope="module")
def open_notebook(lab, chromium):
    """open_notebook(name) -> its page, with all cells executed.

    Opened again in the same file of tests, it is the same page.
    """
    pages = {}

    def open_one(name):
        if name not in pages:
            page = new_page(chromium).page
            page.goto(f"{lab.address}/lab/tree/{name}?reset")
            page.wait_for_selector(".jp-Notebook .jp-Cell")
            there = "() => window.jupyterapp?.shell.currentWidget?.context"
            page.wait_for_function(there)
            assert page.evaluate(RUN) == []
            pages[name] = page
        return pages[name]

    yield open_one
    for page in pages.values():  # all at once
        page.evaluate(
            "() => { const { sessionContext } = window.jupyterapp.shell.currentWidget;"
            " window.gone = sessionContext.shutdown(); }"
        )
    for page in pages.values():
        page.evaluate("window.gone")
        page.context.close()


@pytest.fixture(scope="module")
def open_lesson(open_notebook):
    """open_lesson("00") -> the page of that student lesson after Run All Cells."""

    def open_one(number):
        (lesson,) = sources.select([number], sources.ROOT)
        return open_notebook(lesson.student.name)

    return open_one


@pytest.fixture
def open_cells(lab, open_notebook, request):
    """open_cells(*sources) -> the page of a new notebook of these cells, executed."""

    def open_one(*cells):
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        name = f"{request.node.originalname}.ipynb"
        nbformat.write(notebook, lab.folder / name)
        return open_notebook(name)

    return open_one


# --- the pages of `run`

RUN_ALL = """import sys
from course_lib.runner import run
sys.exit(run([], out=sys.argv[1], workers=2, time_limit=False))"""


@pytest.fixture(scope="session")
def site(tmp_path_factory, chromium):
    """site("01") -> the page that `run` makes of the lesson, all at budget smoke."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"PYTHONPATH": str(sources.ROOT)}
    environment.pop("COURSE_DATA", None)
    ended = subprocess.run(
        [sys.executable, "-c", RUN_ALL, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]

    def page_of(number):
        (lesson,) = sources.select([number], sources.ROOT)
        return folder / f"{lesson.name}.html"

    return page_of


@pytest.fixture
def open_exported(site, open_page):
    """open_exported("01") -> that page of `run`, with the network off.

    When the test is over, nothing may have been fetched but the page itself.
    """
    asked, own = [], []

    def open_one(number, **options):
        page = open_page(offline=True, **options).page
        page.on("request", lambda request: asked.append(request.url))
        own.append(site(number).as_uri())
        page.goto(own[-1])
        return page

    yield open_one
    others = ("data:", "about:", "blob:", *own)
    assert [url for url in asked if not url.startswith(others)] == []


# --- how fast


MEDIANS: dict[str, float] = {}
GOALS = {"browser": 10, "kernel": 80}  # ms, by who draws, on two quiet cores


@pytest.fixture
def note_latency(screenshots):
    """note_latency(name, milliseconds): the median, for the table at the end.

    A name ends in who draws: "browser" or "kernel". No test hangs on a time.
    """

    def note(name, times):
        assert name.split()[-1] in GOALS
        MEDIANS[name] = sorted(times)[len(times) // 2]
        text = json.dumps(MEDIANS, indent=1)
        (screenshots / "latency.json").write_text(text, "utf-8")

    return note


def pytest_terminal_summary(terminalreporter):
    if MEDIANS:
        terminalreporter.section("from a move to its picture, median")
        for name, median in MEDIANS.items():
            goal = GOALS[name.split()[-1]]
            over = f"  (goal on two quiet cores: {goal} ms)" if median > goal else ""
            terminalreporter.write_line(f"{median:8.1f} ms  {name}{over}")
