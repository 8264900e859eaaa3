"""Things to move: thin shells over plain functions, each with a static picture.

Where somebody looks, a widget shows its controls; a saved notebook, GitHub and
papermill show the PNG beside them. A page of `run` shows a live form where a widget has
one, else the PNG. Every callback runs without a front end.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from course_lib.runtime import LIVE_MIME, has_front_end, makes_pages


class LiveWidget:
    """Controls where there is a front end, and always a PNG with alt text.

    A widget sets `box` and `message` (ipywidgets), and gives `alt()`, `static_png()`
    and `draw()`. Its callbacks end in `redraw`, which shows what went wrong.
    """

    box: Any
    message: Any
    _setting = False

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """Several knobs set at once: their callbacks see `_setting`, and wait."""
        self._setting = True
        try:
            yield
        finally:
            self._setting = False

    def alt(self) -> str:
        raise NotImplementedError

    def static_png(self) -> bytes:
        raise NotImplementedError

    def draw(self) -> str | None:
        """Update the picture. Returns a hint for the person where it could not."""
        raise NotImplementedError

    def live_html(self) -> str | None:
        """A form that lives in a page without a kernel or a network, if it has one."""
        return None

    def redraw(self) -> None:
        """Draw; a hint or an error is shown, and an error is raised as well."""
        try:
            hint = self.draw()
        except Exception as error:
            self.message.value = _notice(f"{type(error).__name__}: {error}")
            raise
        self.message.value = _notice(hint) if hint else ""

    def _repr_mimebundle_(self, include=None, exclude=None):
        alt = self.alt()
        data = {"image/png": self.static_png(), "text/plain": f"<Figure: {alt}>"}
        if has_front_end():
            data = {**self.box._repr_mimebundle_(), **data}
        if makes_pages() and (live := self.live_html()):
            data[LIVE_MIME] = live
        return data, {"image/png": {"alt": alt}}


def _notice(text: str) -> str:
    return (
        '<div role="alert" style="border-left:4px solid #D55E00;padding:.4em .8em;'
        f'background:rgba(213,94,0,.12)">{html.escape(text)}</div>'
    )


def slider_names() -> Any:
    """A widget without a face, for a box: it names the sliders beside it.

    To a screen reader a slider of ipywidgets 8 is nameless, and one over a list says
    the number of its place instead of the value.
    """
    import anywidget

    class SliderNames(anywidget.AnyWidget):
        _esm = Path(__file__).with_name("slider_names.js")

    return SliderNames()
