"""Pages: formulas, pictures, widgets, exercises and links, all without a network."""

import base64
import re
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_lib import pages, sources

PIXEL = base64.b64encode(b"\x89PNG not really").decode()
WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}


def page_of(*cells, path, **options):
    pages.write_page(new_notebook(cells=list(cells)), path / "page.html", **options)
    return (path / "page.html").read_text("utf-8")


def shown(**data):
    data = {name.replace("_", "/"): value for name, value in data.items()}
    return pages.output_html(new_output("display_data", data=data))


# Formulas


@pytest.mark.parametrize(
    "text, formulas",
    [
        ("the mean $\\mu$ and $\\sigma^2$", 2),
        ("$$\nx = 1\n$$", 1),
        ("`$x$` and ``a ` $x$``", 0),
        ("```python\ncost = '$x$'\n```\n\n$x$", 1),
        ("~~~\n$x$\n~~~", 0),
        ("it costs \\$5 or \\$6", 0),
        ("it costs $5 and $6", 0),
        ("$a_1 * b_1$ and $c_1 * d_1$", 2),
        ("| a | b |\n|---|---|\n| $x$ | $|y|$ |", 2),
        ("$a < b$, and $c$: \\$5", 2),
    ],
)
def test_formulas_become_mathml_and_code_and_prices_do_not(text, formulas):
    assert pages.markdown(text).count("<math ") == formulas


def test_markdown_around_formulas_stays_markdown():
    page = pages.markdown("**Bold** $x_1$ *and* $x_2$, `$code$`, \\$5")
    assert "<strong>Bold</strong>" in page and "<em>and</em>" in page
    assert "<code>$code$</code>" in page and page.count("$") == 3


def test_heading_with_formula_has_a_clean_anchor():
    page = pages.markdown("## When $D \\to 0$")
    assert re.search(r'<h2 id="When-Dto0">When <math .*</math>', page), page


@pytest.mark.parametrize("tex", ["\\nosuchcommand x", "\\frac{1", "a & b"])
def test_formula_that_cannot_be_converted_is_refused_and_shown_as_tex(tex):
    with pytest.raises(ValueError, match="cannot convert"):
        pages.formula(tex)
    assert "<math" not in pages.markdown(f"${tex}$")
    assert "<code>" in pages.markdown(f"${tex}$")


@pytest.mark.parametrize(
    "tex",
    [
        "\\begin{aligned} a &= b \\\\ c &= d \\end{aligned}",
        "\\arg\\min_\\theta \\mathbb{E}_{x \\sim p}\\left[\\log q(x)\\right]",
        "\\bigl\\| x - \\hat{x} \\bigr\\|_2^2 < \\epsilon \\bigl\\{ a \\bigr\\}",
    ],
)
def test_formulas_of_the_field_are_valid_mathml(tex):
    assert ElementTree.fromstring(pages.formula(tex)).tag.endswith("math")


# Outputs


def test_picture_carries_its_alt_text():
    output = new_output(
        "display_data",
        data={"image/png": PIXEL, "text/plain": "<Figure>"},
        metadata={"image/png": {"alt": 'a "brain" <T1>'}},
    )
    assert pages.output_html(output) == (
        f'<img src="data:image/png;base64,{PIXEL}" '
        'alt="a &quot;brain&quot; &lt;T1&gt;">'
    )


@pytest.mark.parametrize(
    "page, network",
    [
        ('<script src="https://cdn.example.org/a.js"></script>', True),
        ("<script>import('https://cdn.example.org/a.mjs')</script>", True),
        ('<link rel="stylesheet" href="//example.org/a.css">', True),
        ("<style>@import 'https://example.org/a.css'</style>", True),
        ('<img alt="" src=http://example.org/a.png>', True),
        ('<a href="https://example.org/paper.html">paper</a>', False),
        ('<img alt="" src="data:image/png;base64,AA">', False),
        ("<script>let a = 1 // https</script>", False),
    ],
)
def test_loading_from_elsewhere_is_told_from_linking(page, network):
    assert pages.needs_network(page) == network


def test_html_that_needs_a_network_is_replaced_by_its_picture():
    fetching = '<script src="https://cdn.plot.ly/plotly.min.js"></script>'
    assert shown(text_html=fetching, image_png=PIXEL).startswith("<img ")
    assert "open the notebook" in shown(text_html=fetching)
    assert "<b>own</b>" in shown(text_html="<b>own</b>", image_png=PIXEL)


def test_plotly_figure_lives_by_a_script_beside_the_page(tmp_path):
    data = {pages.PLOTLY: {"data": [{"y": [4711, 2]}], "layout": {}}}
    cell = new_code_cell("x", outputs=[new_output("display_data", data=data)])
    page = page_of(cell, path=tmp_path)
    assert "4711" in page and '<script src="plotly.min.js">' in page
    assert not pages.needs_network(page)
    assert (tmp_path / "plotly.min.js").stat().st_size > 1e6
    cell.outputs[0].data["image/png"] = PIXEL
    assert "script" not in page_of(cell, path=tmp_path)


def test_widget_shows_its_picture_or_says_where_it_lives():
    picture = new_output("display_data", data=WIDGET | {"image/png": PIXEL})
    assert pages.output_html(picture).startswith("<img ")
    bare = new_output("display_data", data=WIDGET | {"text/plain": "IntSlider()"})
    assert "open the notebook" in pages.output_html(bare)


def test_printed_text_and_errors_are_escaped_and_coloured():
    text = new_output("stream", text="1 < 2 \x1b[31mred\x1b[0m")
    assert "1 &lt; 2" in pages.output_html(text)
    assert "ansi-red-fg" in pages.output_html(text)
    trace = ["Traceback", "ValueError: <x>"]
    error = new_output("error", ename="ValueError", evalue="<x>", traceback=trace)
    assert "ValueError: &lt;x&gt;" in pages.output_html(error)


# Pages


def test_page_is_valid_without_network_and_linked_both_ways(tmp_path):
    page = page_of(
        new_markdown_cell("# A *title*\n\nOne line.\n\n## Goals & aims\nText."),
        new_code_cell("x = 1 < 2"),
        path=tmp_path,
        previous=("00_a.html", "First"),
        following=("02_b.html", "Third <3"),
        row={"status": "passed", "seconds": 12.3, "budget": "smoke"},
    )
    assert not pages.needs_network(page) and page.startswith("<!DOCTYPE html>")
    for link in ("index.html", "00_a.html", "02_b.html", "#Goals-&amp;-aims"):
        assert f'href="{link}"' in page
    assert "Third &lt;3" in page and "passed" in page and 'lang="en"' in page


def test_answer_of_an_exercise_is_folded_away(tmp_path):
    source = "def f(x):\n    # solution E02.1\n    return x + 4711"
    page = page_of(new_code_cell(source), path=tmp_path)
    before, after = page.split("<details>")
    assert "4711" not in before and "E02.1" in before
    assert "4711" in after.split("</details>")[0]


def test_site_has_a_page_for_each_notebook_and_an_index_of_all(tmp_path):
    for name in ("00_a", "01_b"):
        picture = new_output("display_data", data={"image/png": PIXEL})
        text = f"# Lesson {name}\n\nAbout $x$."
        cells = [new_markdown_cell(text), new_code_cell("show()", outputs=[picture])]
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    rows = [
        {"lesson": "00_a", "status": "passed", "numbers": {"psnr": 24.1234}},
        {"lesson": "01_b", "status": "failed", "problem": "trace\nValueError: <no>"},
        {"lesson": "02_c", "status": "failed", "problem": "DeadKernelError"},
    ]  # fmt: skip
    pages.write_site(tmp_path, rows)
    index = (tmp_path / "index.html").read_text("utf-8")
    assert "24.12<" in index and "ValueError: &lt;no&gt;" in index
    assert index.count(PIXEL) == 2 and "<math " in index
    assert 'href="01_b.html"' in index and 'href="02_c.html"' not in index
    first, second = (
        (tmp_path / f"{x}.html").read_text("utf-8") for x in ("00_a", "01_b")
    )
    assert 'rel="next" href="01_b.html"' in first and 'rel="prev"' not in first
    assert 'rel="prev" href="00_a.html"' in second and 'rel="next"' not in second
    assert not pages.needs_network(index + first + second)


def test_card_shows_the_picture_of_its_own_shape(tmp_path):
    from PIL import Image

    cells = []
    for width, height in ((400, 100), (140, 100), (100, 300), (132, 99)):
        file = tmp_path / "picture.png"
        Image.new("L", (width, height)).save(file)
        picture = {"image/png": base64.b64encode(file.read_bytes()).decode()}
        alt = {"image/png": {"alt": f"{width} wide"}}
        output = new_output("display_data", data=picture, metadata=alt)
        cells.append(new_code_cell("show()", outputs=[output]))
    assert pages.thumbnail(new_notebook(cells=cells))["alt"] == "132 wide"
    assert pages.thumbnail(new_notebook(cells=cells[:3]))["alt"] == "140 wide"
    broken = new_output("display_data", data={"image/png": PIXEL})
    cells[0].outputs = [broken]
    assert pages.thumbnail(new_notebook(cells=cells[:3]))["alt"] == "140 wide"
    assert pages.thumbnail(new_notebook(cells=[new_code_cell("x")])) == {}


def test_lesson_source_becomes_a_page(course):
    notebook = sources.read_source(course / "notebooks" / "src" / "00_means.py")
    pages.write_page(notebook, course / "00_means.html")
    page = (course / "00_means.html").read_text("utf-8")
    assert page.count("<h2 ") == 9 and page.count("<h1 ") == 1
