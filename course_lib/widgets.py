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

import numpy as np

from course_lib import mr_console
from course_lib.mr_console import RANGES
from course_lib.phantoms import PROTOCOLS
from course_lib.runtime import LIVE_MIME, has_front_end, makes_pages

# --- what all widgets share ----------------------------------------------------------


class LiveWidget:
    """Controls where there is a front end, and always a PNG with alt text.

    A widget sets `box` and `message` (ipywidgets), and gives `alt()`, `static_png()`
    and `draw()`. Its callbacks end in `redraw`, which shows what went wrong.
    """

    box: Any
    message: Any

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


# --- lesson 00: the knobs of an MR scanner -------------------------------------------


class MRPhysics(LiveWidget):
    """TR, TE and TI on tissue maps: the slice, the signal curves, three tasks.

    maps: (T, H, W) tissue fractions, from `phantoms.subject_maps`. `scale`: screen
    pixels per image pixel.
    """

    def __init__(self, maps: np.ndarray, *, scale: int = 4):
        import ipywidgets as w

        def slider(name: str, text: str, value: float, step: int) -> Any:
            low, high = RANGES[name]
            # The browser sends a value back as a multiple of the step, as if a person
            # had moved it: times are integers, on steps that meet every protocol.
            return w.IntSlider(
                int(value),
                min=int(low),
                max=int(high),
                step=step,
                description=f"{name}, {text} (ms)",
                style={"description_width": "150px"},
                layout=w.Layout(width="420px", max_width="100%"),
            )

        self.maps, self.scale = np.asarray(maps), scale
        tr, te, _ = PROTOCOLS["T1"]
        self.preset = w.ToggleButtons(
            options=list(PROTOCOLS),
            value="T1",
            description="Protocol",
            style={"button_width": "70px", "description_width": "150px"},
        )
        self.tr = slider("TR", "repetition", tr, 50)
        self.te = slider("TE", "echo", te, 1)
        self.ti = slider("TI", "inversion", PROTOCOLS["FLAIR"][2], 4)
        self.ti.disabled = True
        self.inversion = w.Checkbox(
            False,
            description="Inversion pulse first",
            style={"description_width": "150px"},
            layout=w.Layout(width="420px", max_width="100%"),
        )
        self.view, self.message = w.HTML(), w.HTML()
        self._setting = False
        self.preset.observe(self.on_preset, "value")
        knobs = (self.tr, self.te, self.inversion, self.ti)
        for knob in knobs:
            knob.observe(self.on_move, "value")
        self.box = w.VBox([self.preset, *knobs, self.message, self.view])
        self.redraw()

    @property
    def settings(self) -> dict[str, float | None]:
        """{"tr", "te", "ti"} in ms; ti is None without an inversion pulse."""
        ti = self.ti.value if self.inversion.value else None
        return {"tr": self.tr.value, "te": self.te.value, "ti": ti}

    @contextmanager
    def _as_one(self) -> Iterator[None]:
        """Several knobs set at once: callbacks wait, then one picture is drawn."""
        self._setting = True
        try:
            yield
        finally:
            self._setting = False
        self.ti.disabled = not self.inversion.value
        self.redraw()

    def on_preset(self, change: Any = None) -> None:
        """A protocol was chosen: all knobs go to its times."""
        if self._setting or self.preset.value is None:
            return
        tr, te, ti = PROTOCOLS[self.preset.value]
        with self._as_one():
            self.tr.value, self.te.value = int(tr), int(te)
            self.inversion.value = ti is not None
            self.ti.value = int(ti or self.ti.value)

    def on_move(self, change: Any = None) -> None:
        """A knob was moved: from here the settings are the person's own."""
        if not self._setting:
            with self._as_one():
                self.preset.value = None

    def alt(self) -> str:
        return mr_console.describe(**self.settings)

    def draw(self) -> str | None:
        problem = mr_console.timing_problem(**self.settings)
        if problem is None:
            self.view.value = mr_console.to_html(
                self.maps, scale=self.scale, **self.settings
            )
        return problem

    def static_png(self) -> bytes:
        return mr_console.to_figure(self.maps, **self.settings)

    def live_html(self) -> str:
        from course_lib.browser_widget import live_page

        return live_page(
            Path(mr_console.__file__).with_suffix(".js"),
            mr_console.browser_values(self.maps),
            title="MR console",
            height=640,
        )
