"""The metric sandbox to touch: sliders over `course_lib.metric_sandbox`.

A front end holds further values of a slider back while a callback runs, and sends the
last one, so what is drawn is never older than one update.
"""

from __future__ import annotations

from typing import Any

from course_lib import metric_sandbox
from course_lib.metric_sandbox import PRESETS, RESIZES, Sandbox, Setting
from course_lib.widgets import LiveWidget, slider_names

_WIDE = {"description_width": "175px"}


class MetricSandbox(LiveWidget):
    """Spoil real images by sliders, and see which metric notices.

    sandbox: a `metric_sandbox.Sandbox`. `start`: one of `metric_sandbox.PRESETS`;
    `scale`: screen pixels per image pixel (None: about 64 px an image).
    """

    def __init__(
        self, sandbox: Sandbox, *, start: str = "real", scale: int | None = None
    ):
        import ipywidgets as w

        layout = w.Layout(width="410px", max_width="100%")

        def slider(text: str, high: float, step: float) -> Any:
            return w.FloatSlider(
                0.0,
                min=0.0,
                max=high,
                step=step,
                description=text,
                style=_WIDE,
                layout=layout,
            )

        self.sandbox = sandbox
        self.scale = scale or max(1, 72 // sandbox.fresh.shape[-1])
        self.preset = w.ToggleButtons(
            options=list(PRESETS),
            value="real",
            description="Start from",
            style={"button_width": "86px", "description_width": "70px"},
            layout=w.Layout(width="100%"),
        )
        self.n = w.IntSlider(
            min(Setting().n, sandbox.largest),
            min=100,
            max=sandbox.largest // 50 * 50,
            step=50,
            description="N, images a side",
            style=_WIDE,
            layout=layout,
        )
        self.blur = slider("blur, sigma (px)", 2.0, 0.1)
        self.noise = slider("noise, SD", 0.5, 0.02)
        self.dropped = slider("rarest class, share missing", 1.0, 0.1)
        self.copies = slider("copies, share", 1.0, 0.1)
        self.window = slider("window, cut each end", 0.4, 0.05)
        choice = {"style": _WIDE, "layout": layout}
        self.resize = w.Dropdown(
            options=RESIZES, value="none", description="resize filter", **choice
        )
        self.zero_one = w.Checkbox(
            False, description="fakes left in the range [0, 1]", **choice
        )
        self.extractor = w.Dropdown(
            options=list(sandbox.extractors), description="extractor", **choice
        )
        self.view, self.message = w.HTML(), w.HTML()
        self.preset.observe(self.on_preset, "value")
        self.knobs = {name: getattr(self, name) for name in Setting.__annotations__}
        for knob in self.knobs.values():
            knob.observe(self.on_move, "value")
        columns = [
            w.VBox([self.blur, self.noise, self.dropped, self.copies, self.resize]),
            w.VBox([self.window, self.zero_one, self.n, self.extractor]),
        ]
        knobs = w.HBox(columns, layout=w.Layout(flex_flow="row wrap"))
        shown = [self.message, self.view, slider_names()]
        self.box = w.VBox([self.preset, knobs, *shown])
        if start == "real":
            self.redraw()
        else:
            self.preset.value = start

    @property
    def setting(self) -> Setting:
        """What the knobs say, on their steps."""
        values = {
            name: round(knob.value, 4) if isinstance(knob.value, float) else knob.value
            for name, knob in self.knobs.items()
        }
        return Setting(**values)

    def on_preset(self, change: Any = None) -> None:
        """A preset was chosen: all knobs but N and the extractor go to its values."""
        if self._setting or self.preset.value is None:
            return
        wanted = PRESETS[self.preset.value]
        with self.as_one():
            for name, knob in self.knobs.items():
                if name not in ("n", "extractor"):
                    knob.value = getattr(wanted, name)
        self.redraw()

    def on_move(self, change: Any = None) -> None:
        """A knob was moved: the preset is the one that this is, or none."""
        if not self._setting:
            with self.as_one():
                self.preset.value = metric_sandbox.preset_of(self.setting)
            self.redraw()

    def alt(self) -> str:
        return metric_sandbox.describe(self.sandbox, self.setting)

    def draw(self) -> str | None:
        self.view.value = metric_sandbox.to_html(
            self.sandbox, self.setting, scale=self.scale
        )
        return None

    def static_png(self) -> bytes:
        return metric_sandbox.to_figure(self.sandbox, self.setting)
