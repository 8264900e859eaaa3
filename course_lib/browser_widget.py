"""Widgets whose work is done in the browser: one ES module, with or without a kernel.

In Jupyter the module runs through anywidget. In a page of `run` the same module stands
in an `<iframe srcdoc>` with all that it needs: no kernel, no network.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course_lib.widgets import LiveWidget

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="color-scheme" content="light dark">
<style>body {{ margin: 0; padding: 4px; }}</style></head>
<body><main id="widget"></main>
<script type="application/json" id="values">{values}</script>
<script type="module">
{module}
const values = JSON.parse(document.getElementById("values").textContent);
for (const [name, text] of Object.entries(values.bytes))
  values.plain[name] = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const model = {{
  get: (name) => values.plain[name],
  set: (name, value) => {{ values.plain[name] = value; }},
  save_changes() {{}}, on() {{}}, off() {{}},
}};
const el = document.getElementById("widget");
render({{ model, el }});
const fit = () => {{
  if (window.frameElement)
    window.frameElement.style.height = `${{document.body.scrollHeight + 8}}px`;
}};
new ResizeObserver(fit).observe(el);
fit();
</script></body></html>
"""


def source(module: Path) -> str:
    """The ES module at `module`, behind `dom.js`, of which all of them make use."""
    shared = Path(__file__).with_name("dom.js")
    return shared.read_text("utf-8") + module.read_text("utf-8")


def make_view(module: Path, values: Mapping[str, Any]) -> Any:
    """An anywidget of the ES module at `module`; each value becomes a synced trait.

    Values are bytes, dicts or lists, and stay settable: `view.code = [...]`.
    """
    import anywidget
    import traitlets

    kinds = {bytes: traitlets.Bytes, dict: traitlets.Dict, list: traitlets.List}
    traits = {name: kinds[type(x)](x).tag(sync=True) for name, x in values.items()}
    body = {"_esm": source(module), "__module__": __name__, **traits}
    name = "".join(part.title() for part in module.stem.split("_"))
    return type(name, (anywidget.AnyWidget,), body)()


def live_page(
    module: Path, values: Mapping[str, Any], *, title: str, height: int
) -> str:
    """The same module and values as one `<iframe srcdoc>` that needs nothing else.

    `height` in screen pixels, until the page has measured itself. The module must
    define `render({ model, el })` and import nothing.
    """
    plain = {k: x for k, x in values.items() if not isinstance(x, bytes)}
    coded = {
        k: base64.b64encode(x).decode()
        for k, x in values.items()
        if isinstance(x, bytes)
    }
    text = json.dumps({"plain": plain, "bytes": coded}, separators=(",", ":"))
    page = _PAGE.format(
        title=html.escape(title),
        values=text.replace("</", "<\\/"),  # must not end the script
        module=source(module),
    )
    return (
        f'<iframe title="{html.escape(title)}" style="width:100%;height:{height}px;'
        f'border:0" srcdoc="{html.escape(page)}"></iframe>'
    )


class BrowserWidget(LiveWidget):
    """A LiveWidget whose controls and picture are drawn by an ES module.

    A subclass sets `module`, `title` and `height`, calls `start(values)`, and gives
    `alt()` and `static_png()`. `view` holds the values and follows the person.
    """

    module: Path
    title: str
    height: int
    view: Any

    def start(self, values: Mapping[str, Any]) -> None:
        import ipywidgets as w

        self.names = list(values)
        self.view = make_view(self.module, values)
        self.box = w.VBox([self.view])

    def live_html(self) -> str:
        values = {name: getattr(self.view, name) for name in self.names}
        return live_page(self.module, values, title=self.title, height=self.height)
