"""Executed notebooks as web pages that need no network: one file a lesson, an index.

Formulas become MathML, pictures stay inside the file, and what cannot live without a
kernel or a network is replaced by its static form.
"""

from __future__ import annotations

import base64
import html
import math
import re
import struct
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from course_lib.base import LIVE_MIME, write_text
from course_lib.exercises import LessonError, exercise
from course_lib.sources import headline, read_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

COURSE = "Generative models for medical images"
STYLE = Path(__file__).with_name("pages.css")
PICTURES = ("image/png", "image/jpeg", "image/svg+xml", "image/gif")
CARD = 4 / 3  # width to height of a card's picture in pages.css
SKIP = '<a class="skip" href="#text">Skip to the text</a>\n'
PLOTLY = "application/vnd.plotly.v1+json"
CODE_OR_MATH = re.compile(
    r"(?P<fence>^[ >]*(?P<f>```+|~~~+).*?(?:^[ >]*(?P=f)[`~]*[ ]*$|\Z))"
    r"|(?P<span>(?P<s>`+)(?!`).+?(?<!`)(?P=s)(?!`))"
    r"|(?P<escape>\\.)"
    r"|\$\$(?P<block>.+?)\$\$"
    r"|\$(?P<inline>(?![\s$])(?:\\.|[^$\\])+?(?<!\s))\$(?!\d)",
    re.DOTALL | re.MULTILINE,
)
_TOKEN = re.compile(r"FORMULA(\d+)ALUMROF")
_FETCHES = re.compile(
    r"<(?:script|link|img|iframe|source|video|audio|embed|object)\b[^>]*?"
    r"\b(?:src|href|data)\s*=\s*[\"']?\s*(?:https?:)?//"
    r"|@import|url\(\s*[\"']?(?:https?:)?//"
    r"|https?://[^\s\"'<>]+\.m?js\b",
    re.IGNORECASE,
)


def needs_network(text: str) -> bool:
    """Whether HTML loads something from elsewhere (links to follow do not count).

    What stands in an `<iframe srcdoc>` is looked at, too.
    """
    inner = html.unescape(text) if "srcdoc" in text else ""
    return bool(_FETCHES.search(text) or _FETCHES.search(inner))


# ---------------------------------------------------------------- parts of a page


def formula(tex: str, *, display: bool = False) -> str:
    """TeX -> MathML. Raises ValueError where the converter does not know a command."""
    from xml.etree import ElementTree

    from latex2mathml.converter import convert

    known = tex.replace("{aligned}", "{split}").strip()  # what the converter knows
    known = re.sub(r"\\arg(?![a-z])", r"\\operatorname{arg}", known)
    bare = re.sub(r"\\.", "", known)
    if bare.count("{") != bare.count("}"):
        raise ValueError(f"cannot convert the formula {tex!r}: unbalanced braces")
    try:
        result = convert(known, display="block" if display else "inline")
        # After \\big it leaves these commands as they are.
        result = re.sub(r">\\(?:\||[lr]?Vert)<", ">&#x02016;<", result)
        result = re.sub(r">\\([{}])<", r">\1<", result)
        ElementTree.fromstring(result)  # a stray & would break the page
    except Exception as error:
        raise ValueError(f"cannot convert the formula {tex!r}: {error}") from error
    if "\\" in result:
        raise ValueError(f"cannot convert the formula {tex!r}: unknown command")
    return result


def markdown(text: str) -> str:
    """Markdown with $formulas$ -> HTML with MathML. `\\$` is a dollar; code is code.

    A formula that cannot be converted is shown as its TeX.
    """
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    found: list[tuple[str, bool]] = []

    def keep(match: re.Match[str]) -> str:
        tex = match["block"] or match["inline"]
        if tex is None:
            return match[0]
        found.append((tex, match["block"] is not None))
        return f"FORMULA{len(found) - 1}ALUMROF"

    def shown(match: re.Match[str]) -> str:
        tex, display = found[int(match[1])]
        try:
            return formula(tex, display=display)
        except ValueError:
            return f"<code>{html.escape(tex.strip())}</code>"

    def named(match: re.Match[str]) -> str:
        return html.escape(re.sub(r"[\s\\{}]+", "", found[int(match[1])][0]))

    page = markdown2html_mistune(CODE_OR_MATH.sub(keep, text))
    page = page.replace("<table", '<div class="scroll" tabindex="0"><table')
    page = page.replace("</table>", "</table></div>")
    pieces = re.split(r"(<[^>]*>)", page)  # every second one is a tag
    pieces[::2] = [_TOKEN.sub(shown, piece) for piece in pieces[::2]]
    pieces[1::2] = [_TOKEN.sub(named, piece) for piece in pieces[1::2]]
    return "".join(pieces)


def code(source: str) -> str:
    """Python source -> HTML with pygments' classes."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    page = highlight(source, PythonLexer(), HtmlFormatter())
    return page.replace("<pre>", '<pre tabindex="0">')


def picture(output: Mapping[str, Any]) -> tuple[str, str] | None:
    """(data: address, alt text) of an output's picture, or None."""
    data = output.get("data", {})
    for kind in PICTURES:
        if kind in data:
            content = "".join(data[kind])
            alt = output.get("metadata", {}).get(kind, {}).get("alt")
            alt = alt or "Picture made by the code above"
            if kind == "image/svg+xml":
                return f"data:{kind};utf8,{quote(content)}", alt
            return f"data:{kind};base64,{''.join(content.split())}", alt
    return None


def output_html(output: Mapping[str, Any]) -> str:
    """One output of a cell as HTML that needs neither a kernel nor a network."""
    from nbconvert.filters import ansi2html

    if output["output_type"] == "stream":
        return f'<pre class="{output["name"]}">{ansi2html(output["text"])}</pre>'
    if output["output_type"] == "error":
        trace = ansi2html("\n".join(output["traceback"]))
        return f'<pre class="error" role="alert">{trace}</pre>'
    data = output["data"]
    found = picture(output)
    live_form = "".join(data.get(LIVE_MIME, ""))
    if live_form and not needs_network(live_form):
        return f'<div class="live">{live_form}</div>'
    page = "".join(data.get("text/html", ""))
    live = "application/vnd.jupyter.widget-view+json" in data
    if page and not needs_network(page) and not (live and found):
        return f'<div class="html">{page}</div>'
    if found:
        width = output.get("metadata", {}).get("image/png", {}).get("width")
        size = f' width="{int(width)}"' if width else ""
        return f'<img src="{found[0]}" alt="{html.escape(found[1])}"{size}>'
    if "text/markdown" in data:
        return f'<div class="html">{markdown("".join(data["text/markdown"]))}</div>'
    if "text/latex" in data:
        return markdown("".join(data["text/latex"]))
    if PLOTLY in data:
        import plotly.io

        return plotly.io.to_html(
            data[PLOTLY], full_html=False, include_plotlyjs=False, validate=False
        )
    if live or page:
        return '<p class="note">Interactive: open the notebook to use it.</p>'
    return f"<pre>{ansi2html(''.join(data.get('text/plain', '')))}</pre>"


def cell_html(cell: NotebookNode) -> str:
    """One cell as HTML; the answer of an exercise is folded away."""
    if cell.cell_type == "markdown":
        return f'<div class="prose">{markdown(cell.source)}</div>'
    if cell.cell_type != "code":
        return ""
    try:
        task = exercise(cell.source)
    except LessonError:
        task = None
    parts = [code(task.stub if task else cell.source)] if cell.source.strip() else []
    if task:
        answer = code(textwrap.dedent(task.solution))
        parts.append(
            f"<details><summary>One answer to {task.id}</summary>{answer}</details>"
        )
    results = "".join(output_html(output) for output in cell.outputs)
    if results:
        parts.append(f'<div class="out">{results}</div>')
    stub = cell.get("id", "").startswith("exercise-")
    kind = "cell exercise" if task or stub else "cell"
    if "injected-parameters" in cell.metadata.get("tags", []):
        parts.insert(0, '<p class="label">Parameters of this run</p>')
    return f'<div class="{kind}">{"".join(parts)}</div>'


# ---------------------------------------------------------------- pages


class Frame(NamedTuple):
    """HTML that a site adds to its pages: in the bar, below the title, at the end."""

    bar: str = ""
    lead: str = ""
    end: str = ""


BARE = Frame()


def write_page(
    notebook: Path | NotebookNode,
    path: Path,
    *,
    previous: tuple[str, str] | None = None,
    following: tuple[str, str] | None = None,
    row: Mapping[str, Any] | None = None,
    frame: Frame = BARE,
) -> None:
    """Write one lesson as a page. `previous` and `following` are (address, title).

    The page is one file; only where it holds plotly figures, plotly.min.js joins it.
    `row` is the lesson's row of the report, as for `write_index`.
    """
    if isinstance(notebook, (str, Path)):
        notebook = read_notebook(notebook)
    title = headline(notebook)[0] or Path(path).stem
    body = "\n".join(map(cell_html, notebook.cells))
    facts = _facts(row or {}, skip=("lesson", "numbers"))
    lead = f'<p class="facts">{facts}</p>' if facts else ""
    # below the title, which the lesson brings
    body = body.replace("</h1>", f"</h1>\n{lead}{frame.lead}", 1)
    links = [("index.html", COURSE, "up")]
    links += [(*previous, "prev")] if previous else []
    links += [(*following, "next")] if following else []
    ways = "".join(
        f'<a class="{rel}" rel="{rel}" href="{quote(href)}">{html.escape(text)}</a>'
        for href, text, rel in links
    )
    headings = re.findall(r'<h2 id="([^"]*)">(.*?)<a class="anchor-link"', body)
    contents = "".join(f'<li><a href="#{x}">{text}</a></li>' for x, text in headings)
    page = (  # the contents stand twice: folded on a phone, beside the text elsewhere
        f'{SKIP}<nav class="ways" aria-label="Lessons">{ways}{frame.bar}</nav>'
        '<details class="contents narrow"><summary>On this page</summary>'
        f"<ul>{contents}</ul></details>"
        '<div class="columns"><nav class="contents wide" aria-label="On this page">'
        f'<ul>{contents}</ul></nav>\n<main id="text">\n{body}\n</main></div>\n'
        f'<nav class="ways end" aria-label="Lessons, again">{ways}</nav>{frame.end}'
    )
    script = ""
    if "Plotly.newPlot" in body:  # 5 MB, so once for all pages of a folder
        from plotly.offline import get_plotlyjs

        write_text(Path(path).with_name("plotly.min.js"), get_plotlyjs())
        script = '<script src="plotly.min.js"></script>\n'
    write_text(path, _document(title, page, script))


def write_index(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    section: str = "",
    frame: Frame = BARE,
) -> None:
    """Write the page that lists lessons, one card a row, below the HTML of `section`.

    Keys of a row, all but `lesson` optional: lesson, title, summary, page (address),
    thumbnail (data: address), alt, status, note, budget, dataset, device, seconds,
    numbers (name -> value), problem.
    """
    rows = list(rows)
    cards = "\n".join(map(_card, rows))
    passed = sum(row.get("status") == "passed" for row in rows)
    seconds = sum(row.get("seconds") or 0 for row in rows)
    told = f"{passed} of {len(rows)} lessons passed · {_time(seconds)}"
    if not any(row.get("status") for row in rows):
        told = f"{len(rows)} lessons"
    devices = sorted({row["device"] for row in rows if row.get("device")})
    bar = f'<nav class="ways" aria-label="Course">{frame.bar}</nav>'
    page = (
        SKIP
        + (bar if frame.bar else "")
        + f'<main class="index" id="text"><header><h1>{COURSE}</h1>{frame.lead}'
        f'<p class="facts">{html.escape(" · ".join([told, *devices]))}</p></header>'
        f'\n{section}\n<ol class="cards">\n{cards}\n</ol>\n'
        '<footer class="facts">For teaching. Not for clinical use.</footer></main>'
        f"{frame.end}"
    )
    write_text(path, _document(COURSE, page))


def write_site(
    folder: Path, rows: Sequence[Mapping[str, Any]], section: str = ""
) -> None:
    """Write a page beside each executed notebook in `folder`, and index.html.

    A row's notebook is `name`.ipynb, or `lesson`.ipynb where it has no name; where the
    file is missing the row stands in the index without a page. `title` is added to the
    notebook's own; `section` is HTML for the index.
    """
    folder = Path(folder)
    full: list[dict[str, Any]] = []
    notebooks = []
    for row in rows:
        name = row.get("name", row["lesson"])
        path = folder / f"{name}.ipynb"
        notebook = read_notebook(path) if path.exists() else None
        notebooks.append(notebook)
        title, summary = headline(notebook) if notebook else (row["lesson"], "")
        title = " · ".join(filter(None, (title or row["lesson"], row.get("title"))))
        extra = {"title": title, "summary": summary}
        if notebook:
            extra["page"] = f"{name}.html"
            extra |= thumbnail(notebook)
        full.append({**row, **extra})
    there = [i for i, notebook in enumerate(notebooks) if notebook]
    ways = [None, *((full[i]["page"], full[i]["title"]) for i in there), None]
    for place, i in enumerate(there):
        write_page(
            notebooks[i],
            folder / full[i]["page"],
            previous=ways[place],
            following=ways[place + 2],
            row=full[i],
        )
    write_index(folder / "index.html", full, section)


def thumbnail(notebook: NotebookNode) -> dict[str, str]:
    """The picture nearest to the shape of a card, as `thumbnail` and `alt` of a row."""
    found = [
        found
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if (found := picture(output))
    ]
    if not found:
        return {}
    address, alt = min(found, key=lambda x: _away_from_card(x[0]))
    return {"thumbnail": address, "alt": alt}


def _away_from_card(address: str) -> float:
    """How far the sides of a PNG are from 4:3; infinite for what is no PNG."""
    content = address.partition("base64,")[2][:32]
    head = base64.b64decode(content + "=" * (-len(content) % 4))
    if not head.startswith(b"\x89PNG\r\n") or len(head) < 24:
        return math.inf
    width, height = struct.unpack(">II", head[16:24])
    return abs(math.log(width / height / CARD)) if width and height else math.inf


def _card(row: Mapping[str, Any]) -> str:
    title = html.escape(str(row.get("title") or row["lesson"]))
    if row.get("page"):
        title = f'<a href="{quote(row["page"])}">{title}</a>'
    number = html.escape(str(row["lesson"])[:2])
    image = f'<div class="thumbnail empty" aria-hidden="true">{number}</div>'
    if row.get("thumbnail"):
        alt = html.escape(str(row.get("alt") or f"First picture of {row['lesson']}"))
        image = f'<img src="{row["thumbnail"]}" alt="{alt}">'
        image = f'<div class="thumbnail">{image}</div>'
    numbers = "".join(
        f"<div><dt>{html.escape(name.replace('_', ' '))}</dt>"
        f"<dd>{html.escape(_number(value))}</dd></div>"
        for name, value in (row.get("numbers") or {}).items()
    )
    problem = row.get("problem")
    return (
        f'<li class="card">{image}<div class="text">'
        f"<h2>{title}</h2><p>{markdown_line(row.get('summary') or '')}</p>"
        f'<p class="facts">{_facts(row, skip=("lesson", "device"))}</p>'
        + (f"<dl>{numbers}</dl>" if numbers else "")
        + (f'<pre class="error">{_last_line(problem)}</pre>' if problem else "")
        + "</div></li>"
    )


def markdown_line(text: str) -> str:
    """One paragraph of markdown as inline HTML."""
    return re.sub(r"</?p>", "", markdown(text)).strip()


def _last_line(problem: str) -> str:
    """What a traceback comes to."""
    from nbconvert.filters import strip_ansi

    return html.escape(strip_ansi(problem).strip().split("\n")[-1])


def _facts(row: Mapping[str, Any], skip: Sequence[str]) -> str:
    """'passed · budget smoke · phantom · 12 s', what is known of it."""
    facts = []
    if row.get("status"):
        status = html.escape(str(row["status"]))
        kind = "good" if status == "passed" else "bad"
        facts.append(f'<span class="status {kind}">{status}</span>')
    for key, form in (("budget", "budget {}"), ("dataset", "{}"), ("device", "{}")):
        if row.get(key) and key not in skip:
            value = str(row[key])
            value = Path(value).name if key == "dataset" else value
            facts.append(html.escape(form.format(value)))
    if row.get("seconds") is not None:
        facts.append(_time(row["seconds"]))
    if row.get("note"):
        facts.append(html.escape(str(row["note"])))
    return " · ".join(facts)


def _time(seconds: float) -> str:
    time = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
    return time.replace(" ", "\N{NO-BREAK SPACE}")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _document(title: str, body: str, script: str = "") -> str:
    name = title if title == COURSE else f"{title} - {COURSE}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(name)}</title>\n"
        f"<style>\n{STYLE.read_text('utf-8')}</style>\n{script}</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
