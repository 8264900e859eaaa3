"""The course as a web site: plain files that open from a disk, with the network off.

Pages are made from the executed notebooks, so building it runs nothing. The search is
a script beside the pages that carries its index: a page opened from `file://` may load
that, and could not fetch data.
"""

from __future__ import annotations

import datetime
import html
import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_lib import pages, schedule
from course_lib.base import ROOT, write_text
from course_lib.exercises import LessonError, exercises, for_instructor, leaks
from course_lib.pages import Frame
from course_lib.schedule import Dates
from course_lib.sources import Lesson, lessons, read_notebook, write

if TYPE_CHECKING:
    from nbformat import NotebookNode

SCRIPT = Path(__file__).with_name("website.js")
PAGES_BRANCH = "gh-pages"  # where .github/workflows/site.yml puts the site
SEARCH = (
    '<div class="search" role="search"><input type="search" id="search" '
    'placeholder="Search the course  /" aria-label="Search the course" '
    'autocomplete="off" spellcheck="false"><div hidden>'
    '<p id="count" role="status"></p><ul id="found"></ul></div></div>'
)
_REPOSITORY = re.compile(r"(?:https://github\.com/)?([\w.-]+/[\w.-]+?)(?:\.git)?/?")
_DEFINITION = re.compile(r"^(?:def|class) (\w+)", re.MULTILINE)
_HEADING = re.compile(
    r'<h[123] id="([^"]*)">(.*?)<a class="anchor-link".*?</h[123]>', re.S
)


def repository(wanted: str | None = None, root: Path = ROOT) -> str | None:
    """OWNER/NAME of the course on GitHub, or None where nobody has said it.

    `wanted`, else pyproject.toml's [project.urls] Repository, else the repository whose
    workflow runs (GITHUB_REPOSITORY). Raises LessonError for what is none.
    """
    if not wanted:
        text = (root / "pyproject.toml").read_text("utf-8")
        wanted = tomllib.loads(text)["project"].get("urls", {}).get("Repository")
    wanted = wanted or os.environ.get("GITHUB_REPOSITORY")
    if not wanted:
        return None
    match = _REPOSITORY.fullmatch(wanted.strip())
    if not match:
        raise LessonError(f"--repository {wanted}: write OWNER/NAME, as on github.com")
    return match[1]


def build_site(
    out: Path,
    *,
    root: Path = ROOT,
    address: str | None = None,
    dates: Mapping[str, Dates] | None = None,
    today: datetime.date | None = None,
) -> Path:
    """Write the site into `out`; returns its index page.

    `address` is OWNER/NAME on GitHub: with it the pages link to Colab and Binder.
    `dates` (`schedule.read`) leaves out other lessons, what is not released `today`,
    and answers until they are due. Raises LessonError where a lesson was not executed.
    """
    everything, today = lessons(root), today or datetime.date.today()
    chosen = [x for x in everything if dates is None or x.number in dates]
    shown = [x for x in chosen if dates is None or dates[x.number].released(today)]
    for lesson in shown:
        if not (lesson.notebook.is_file() and lesson.student.is_file()):
            raise LessonError(f"{lesson.name} has no notebook; build {lesson.number}")
    if not chosen:
        raise LessonError("there are no lessons; nothing to make a site of")
    out.mkdir(parents=True, exist_ok=True)
    for lesson in everything:  # an earlier site may have shown more
        if lesson not in shown:
            (out / f"{lesson.name}.html").unlink(missing_ok=True)
            (out / "notebooks" / lesson.student.name).unlink(missing_ok=True)
    ways = [None, *((f"{lesson.name}.html", lesson.title) for lesson in shown), None]
    rows, sections = [], []
    end = '<script src="search.js"></script>'
    for lesson in chosen:
        when = dates[lesson.number] if dates is not None else None
        if lesson not in shown:
            rows.append(_row(lesson, f"from {schedule.spoken(when.release)}"))
            continue
        place = shown.index(lesson)
        notebook = read_notebook(lesson.notebook)
        notebook.cells = [x for x in notebook.cells if not for_instructor(x)]
        if when and not when.answered(today):
            notebook = _without_answers(notebook)
        row = _row(lesson, _note(lesson, when)) | pages.thumbnail(notebook)
        row["page"] = f"{lesson.name}.html"
        rows.append(row)
        pages.write_page(
            notebook,
            out / row["page"],
            previous=ways[place],
            following=ways[place + 2],
            frame=Frame(SEARCH, _badges(lesson, row["note"], address), end),
        )
        sections += _sections(notebook, row["page"], lesson.title)
        write(out / "notebooks" / lesson.student.name, _to_take(lesson, address))
    index = json.dumps(sections, ensure_ascii=False, separators=(",", ":"))
    script = f"const PAGES = {index};\n{SCRIPT.read_text('utf-8')}"
    write_text(out / "search.js", script)
    lead, section = _welcome(root, out)
    pages.write_index(out / "index.html", rows, section, Frame(SEARCH, lead, end))
    return out / "index.html"


def _row(lesson: Lesson, note: str) -> dict[str, Any]:
    return {
        "lesson": lesson.name,
        "title": lesson.title,
        "summary": lesson.summary,
        "note": note,
    }


def _note(lesson: Lesson, when: Dates | None) -> str:
    minutes = lesson.minutes.get("lab")
    note = f"runs in at most {minutes:g} min on two cores" if minutes else ""
    due = f"hand in by {schedule.spoken(when.due)}" if when and when.due else ""
    return " · ".join(filter(None, (note, due)))


def _without_answers(notebook: NotebookNode) -> NotebookNode:
    """The executed lesson with the student's stubs, proven to show no answer."""
    tasks = dict(exercises(notebook))
    for i, task in tasks.items():
        notebook.cells[i].source = task.stub
    for finding in leaks(tasks.values(), notebook):
        raise LessonError(f"{notebook.metadata.course.source}: {finding}")
    return notebook


def _badges(lesson: Lesson, note: str, address: str | None) -> str:
    """Ways to run the lesson: its notebook, and with an address Colab and Binder."""
    name = lesson.student.name
    ways = {"Notebook": f"notebooks/{name}"}
    if address:
        ways["Open in Colab"] = (
            f"https://colab.research.google.com/github/{address}/blob/{PAGES_BRANCH}/"
            f"notebooks/{name}"
        )
        ways["Open in Binder"] = (
            f"https://mybinder.org/v2/gh/{address}/HEAD"
            f"?urlpath=lab/tree/notebooks/student/{name}"
        )
    links = (
        f'<a href="{html.escape(href)}"{" download" if text == "Notebook" else ""}>'
        f"{text}</a>"
        for text, href in ways.items()
    )
    return f'<p class="badges">{"".join(links)}<span>{note}</span></p>'


def _to_take(lesson: Lesson, address: str | None) -> NotebookNode:
    """The student's notebook; with an address it sets itself up on Colab."""
    from nbformat.v4 import new_code_cell

    notebook = read_notebook(lesson.student)
    if address:
        notebook.cells.insert(0, new_code_cell(_colab(address), id="colab"))
    return notebook


def _colab(address: str) -> str:
    return (
        "# On Google Colab: fetch the course and the packages that it needs.\n"
        "import sys\n\n"
        'if "google.colab" in sys.modules:\n'
        f"    !git clone -q --depth 1 https://github.com/{address} /content/course\n"
        "    !pip install -q /content/course\n"
        '    sys.path.insert(0, "/content/course")\n'
        "    from google.colab import output\n\n"
        "    output.enable_custom_widget_manager()"
    )


# ---------------------------------------------------------------- search


def _sections(notebook: NotebookNode, page: str, title: str) -> list[list[str]]:
    """[address, lesson, heading, text] of each section, and what its code defines."""
    found = [[page, title, title, ""]]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found[-1][3] += " " + " ".join(_DEFINITION.findall(cell.source))
            continue
        before, *rest = _HEADING.split(pages.markdown(cell.source))
        found[-1][3] += " " + before
        for anchor, heading, text in zip(
            rest[::3], rest[1::3], rest[2::3], strict=True
        ):
            name = _words(heading)
            if name == title:
                found[-1][3] += " " + text
            else:
                found.append([f"{page}#{anchor}", title, name, text])
    return [[*place, _words(text)] for *place, text in found]


def _words(page: str) -> str:
    """The text of HTML; of formulas, those that are a few letters."""

    def letters(formula: re.Match[str]) -> str:
        text = re.sub(r"<[^>]+>|\s", "", formula[0])
        return text if len(html.unescape(text)) <= 12 else "\N{HORIZONTAL ELLIPSIS}"

    page = re.sub(r"<math.*?</math>", letters, page, flags=re.DOTALL)
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    return re.sub(r" ([.,;:!?)])", r"\1", text)


# ---------------------------------------------------------------- the index


def _welcome(root: Path, out: Path) -> tuple[str, str]:
    """(the README's first words and its picture with its alt text, how to start)."""
    text = (root / "README.md").read_text("utf-8")
    about = re.search(r"^# .+\n+((?:.+\n)+)", text)
    lead = f'<p class="lead">{pages.markdown_line(about[1])}</p>' if about else ""
    picture = re.search(r"!\[([^\]]+)\]\((\.github/[\w.-]+)\)", text)
    if picture and (root / picture[2]).is_file():
        name = Path(picture[2]).name
        shutil.copyfile(root / picture[2], out / name)
        alt = html.escape(picture[1])
        lead += f'<img class="hero" src="{name}" alt="{alt}">'
    start = (
        '<section class="start"><h2>Start</h2>\n<pre tabindex="0"><code>'
        "# your own copies, in JupyterLab\npython3 -m course_lib lab\n\n"
        "# all in minutes, from shipped weights\npython3 -m course_lib run"
        "</code></pre></section>"
    )
    return lead, start


def command(out: str | None, wanted: str | None, timetable: str | None = None) -> int:
    """`build --site` for the command line. Exit code."""
    folder = Path(out or ROOT / "build" / "site").expanduser().resolve()
    try:
        address = repository(wanted)
        dates = schedule.read(timetable, lessons()) if timetable else None
        index = build_site(folder, address=address, dates=dates)
    except (LessonError, OSError) as problem:
        print(f"course_lib: {problem}", file=sys.stderr)
        return 1
    if address is None:
        print("no links to Colab and Binder: say --repository OWNER/NAME for them")
    if dates is None:
        print("answers are folded into the pages: --schedule FILE leaves them out")
    print(f"read it: {index.as_uri()}")
    return 0
