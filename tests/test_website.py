"""The site: complete, linked, described, searchable, and alone with a disk."""

import datetime
import html
import json
import re
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_output

from course_lib import notebooks, pages, sources, website
from course_lib.__main__ import main
from course_lib.exercises import LessonError, exercises, leaks
from course_lib.schedule import Dates
from course_lib.sources import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site of this repository."""
    folder = tmp_path_factory.mktemp("site")
    website.build_site(folder, address="someone/course")
    return folder


class Page(HTMLParser):
    """Ids, links, pictures and loaded files of a page."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.pictures, self.loaded = [], [], [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append(given.get("href", ""))
        if tag in ("img", "svg", "canvas", "iframe"):
            words = given.get("alt") or given.get("aria-label") or given.get("title")
            self.pictures.append((tag, words))
        source = given.get("src") or (given.get("href") if tag == "link" else None)
        if source and not source.startswith("data:"):
            self.loaded.append(source)


@cache
def ids_of(path):
    return Page(path).ids


def undescribed(folder):
    """Pictures of a site whose alt text is missing, empty or says nothing."""
    return [
        (path.name, tag)
        for path in sorted(folder.glob("*.html"))
        for tag, words in Page(path).pictures
        if not (words or "").strip() or words == "Picture made by the code above"
    ]


def test_there_is_a_page_for_each_lesson_in_order(site):
    lessons = sources.lessons()
    names = [f"{lesson.name}.html" for lesson in lessons]
    assert sorted(path.name for path in site.glob("*.html")) == [*names, "index.html"]
    index = (site / "index.html").read_text("utf-8")
    places = [index.index(f'href="{name}"') for name in names]
    assert places == sorted(places)
    for before, name in pairwise(names):
        assert f'rel="next" href="{name}"' in (site / before).read_text("utf-8")
        assert f'rel="prev" href="{before}"' in (site / name).read_text("utf-8")


def test_no_image_is_without_alt_text(site, tmp_path):
    assert undescribed(site) == []
    assert sum(len(Page(path).pictures) for path in site.glob("*.html")) > 50
    (tmp_path / "a.html").write_text('<img src="a"><img src="b" alt=" "><svg></svg>')
    assert len(undescribed(tmp_path)) == 3  # the rule can fail


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    for path in site.glob("*.html"):
        page = Page(path)
        assert not pages.needs_network(path.read_text("utf-8")), path.name
        assert len(page.ids) == len(set(page.ids)), path.name
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme:
                assert link not in page.loaded
                continue
            target = site / unquote(parts.path) if parts.path else path
            if "/" in parts.path and not parts.path.startswith("notebooks/"):
                continue  # a lesson's link into the repository
            assert target.exists(), (path.name, link)
            if parts.fragment:
                assert parts.fragment in ids_of(target), (path.name, link)


def search_index(site):
    script = (site / "search.js").read_text("utf-8")
    return json.loads(re.match(r"const PAGES = (.*);\n", script)[1])


def test_the_search_knows_every_section_and_what_code_defines(site):
    found = search_index(site)
    for address, _lesson, heading, _text in found:
        page, _, anchor = address.partition("#")
        assert (site / page).exists() and heading
        assert not anchor or anchor in ids_of(site / page)
    headings = {(address[:2], heading) for address, _, heading, _ in found}
    assert ("01", "Model") in headings and ("05", "Claim check") in headings
    assert any("Encoder" in text for address, *_, text in found if "#Model" in address)
    assert not any("<" in text and "</" in text for *_, text in found)


def test_a_notebook_from_the_site_sets_itself_up_on_colab(site, tmp_path):
    path = site / "notebooks" / "01_autoencoder.ipynb"
    first, *rest = sources.read_notebook(path).cells
    assert "https://github.com/someone/course" in first.source
    assert "enable_custom_widget_manager" in first.source
    student = sources.read_notebook(ROOT / "notebooks" / "student" / path.name)
    assert rest == student.cells
    page = (site / "01_autoencoder.html").read_text("utf-8")
    assert f"/github/someone/course/blob/gh-pages/notebooks/{path.name}" in page
    assert "mybinder.org/v2/gh/someone/course/HEAD" in page
    from IPython.core.inputtransformer2 import TransformerManager

    plain = TransformerManager().transform_cell(first.source)
    scope = {}
    exec(compile(plain, "cell", "exec"), scope)  # elsewhere it does nothing


@pytest.fixture
def built(course):
    """The tiny course, executed by hand, with a README."""
    notebooks.build(execute=False, root=course)
    source = sources.read_source(course / "notebooks" / "src" / "00_means.py")
    for cell in source.cells:
        if cell.cell_type == "code":
            cell.outputs = [new_output("stream", text="done")]
    nbformat.write(source, course / "notebooks" / "00_means.ipynb")
    (course / "README.md").write_text("# A course\n\nAbout *means*.\n", "utf-8")
    (course / "pyproject.toml").write_text("[project]\nname='x'\n", "utf-8")
    return course


def test_without_an_address_there_is_no_made_up_one(built, monkeypatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    assert website.repository(root=built) is None
    index = website.build_site(built / "site", root=built)
    text = (built / "site" / "00_means.html").read_text("utf-8")
    assert "colab" not in text and "binder" not in text and "done" in text
    assert "About <em>means</em>." in index.read_text("utf-8")
    cells = sources.read_notebook(built / "site" / "notebooks" / "00_means.ipynb").cells
    assert not any("google.colab" in cell.source for cell in cells)


def test_the_address_comes_from_one_place(built, monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "fork/course")
    assert website.repository(root=built) == "fork/course"
    text = "[project]\nname='x'\nurls = {Repository = 'https://github.com/a/b.git'}\n"
    (built / "pyproject.toml").write_text(text, "utf-8")
    assert website.repository(root=built) == "a/b"
    assert website.repository("https://github.com/c/d", root=built) == "c/d"
    for wrong in ("course", "https://example.org/a/b", "a/b/c", 'a/b"><script>'):
        with pytest.raises(LessonError, match="write OWNER/NAME"):
            website.repository(wrong, root=built)


def test_a_lesson_that_nobody_executed_is_an_error_with_the_fix(course, capsys):
    with pytest.raises(LessonError, match="00_means has no notebook; build 00"):
        website.build_site(course / "site", root=course)
    assert website.command(str(course), "no address") == 1
    assert "--repository no address" in capsys.readouterr().err


def test_what_binder_and_the_container_read_exists():
    lines = (ROOT / "binder" / "requirements.txt").read_text("utf-8").splitlines()
    assert "-e ." in lines and "-c ../requirements.lock" in lines
    assert (ROOT / "binder" / "runtime.txt").read_text("utf-8").strip() == "python-3.11"
    recipe = (ROOT / "Containerfile").read_text("utf-8")
    for line in re.findall(r"^COPY (.+) \S+$", recipe, re.MULTILINE):
        for name in line.split():
            assert name.startswith("--") or (ROOT / name).exists(), name


# For a class, week by week


def day(number):
    return datetime.date(2026, 10, number)


def text_of(path):
    """What a reader of a page sees, pictures apart."""
    return html.unescape(re.sub(r"<[^<>]*>", "", path.read_text("utf-8")))


def test_before_the_day_after_they_are_due_a_site_shows_no_answers(tmp_path):
    chosen = sources.lessons()
    dates = {x.number: Dates(day(5), day(12)) for x in chosen}
    website.build_site(tmp_path, dates=dates, today=day(12))
    pages_of = {x.number: tmp_path / f"{x.name}.html" for x in chosen}
    for lesson in chosen:
        tasks = [task for _, task in exercises(sources.read_source(lesson.source))]
        page = pages_of[lesson.number]
        shown = {"page": text_of(page), "search": text_of(tmp_path / "search.js")}
        assert tasks and leaks(tasks, shown) == []
        text = page.read_text("utf-8")
        assert "One answer" not in text and text.count('class="cell exercise"') > 2
        assert "hand in by 12 October 2026" in text
    website.build_site(tmp_path, dates=dates, today=day(13))
    for lesson in chosen:
        text = text_of(pages_of[lesson.number])
        tasks = [task for _, task in exercises(sources.read_source(lesson.source))]
        assert text.count("One answer to") == len(tasks) and leaks(tasks, {"": text})


def test_what_is_not_released_is_announced_and_an_older_page_of_it_goes(built):
    out = built / "site"
    page, notebook = out / "00_means.html", out / "notebooks" / "00_means.ipynb"
    website.build_site(out, root=built)
    assert page.exists() and notebook.exists()
    dates = {"00": Dates(day(5))}
    index = website.build_site(out, root=built, dates=dates, today=day(4))
    assert not page.exists() and not notebook.exists()
    text = index.read_text("utf-8")
    assert "from 5 October 2026" in text and "00_means.html" not in text
    assert search_index(out) == []
    website.build_site(out, root=built, dates=dates, today=day(5))
    assert "One answer" not in page.read_text("utf-8") and notebook.exists()
    with pytest.raises(LessonError, match="there are no lessons"):
        website.build_site(out, root=built, dates={})


def test_an_answer_that_stands_in_an_output_stops_the_site(built):
    path = built / "notebooks" / "00_means.ipynb"
    notebook = nbformat.read(path, 4)
    shown = "total = sum(float(value) for value in values)\nreturn total / len(values)"
    cell = next(x for x in notebook.cells if x.cell_type == "code")
    cell.outputs = [new_output("stream", text=shown)]
    nbformat.write(notebook, path)
    website.build_site(built / "site", root=built)
    with pytest.raises(LessonError, match=r"the answer of E00\.1 stands outside"):
        website.build_site(built / "site", root=built, dates={"00": Dates(day(1))})


def test_what_is_for_the_instructor_alone_is_on_no_site(built):
    website.build_site(built / "site", root=built)
    assert "Means of pictures" in text_of(built / "site" / "00_means.html")
    for path in (built / "site").rglob("*.*"):
        assert "integer division" not in path.read_text("utf-8"), path.name


def test_what_belongs_to_a_site_is_refused_without_it(capsys):
    for name in ("out", "repository", "schedule"):
        with pytest.raises(SystemExit):
            main(["build", "00", f"--{name}", "x"])
        assert f"build --site --{name}" in capsys.readouterr().err
