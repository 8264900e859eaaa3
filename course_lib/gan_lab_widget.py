"""The GAN lab: a thin shell over `course_lib.gan_lab`, trained live in the kernel.

Training runs in slices of a few steps on the kernel's own loop, so that buttons and
sliders answer in between; a slice waits until its last picture has been seen.
"""

from __future__ import annotations

import asyncio
import html
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from torch import Tensor

from course_lib import gan_lab, gan_lab_picture, runtime
from course_lib.gan_lab import CLIPPED, LOSSES, MADE, PLAYERS, Game
from course_lib.gan_lab_presets import PRESETS
from course_lib.widgets import LiveWidget, slider_names

RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
DRAWN, FEATURES = "drawn by hand", "features of images"
FEW = {
    "new ones at each step": 0,  # no None: a menu takes it for no choice
    "64 points": 64,
    "16 points": 16,
}
UNPAINTED_S = 0.5  # so long the next picture waits for the last one to be painted
UNSEEN_S = 10.0  # nobody has seen a picture for so long: pause


class Plane(anywidget.AnyWidget):
    """The picture as PNG bytes, and points that a person puts on it."""

    _esm = Path(__file__).with_name("plane.js")
    size = traitlets.Int(gan_lab_picture.SIZE).tag(sync=True)
    half = traitlets.Float(gan_lab.HALF).tag(sync=True)
    picture = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)  # counts pictures
    painted = traitlets.Int(0).tag(sync=True)  # the last one that the page has drawn
    drawing = traitlets.Bool(False).tag(sync=True)
    points = traitlets.List([]).tag(sync=True)


@cache
def _twin(names: tuple[str, ...]) -> tuple[bytes, str]:
    return gan_lab_picture.twin(names)


class GANLab(LiveWidget):
    """A GAN in the plane: presets with a question first, and every knob.

    `features` (N, D) of images add themselves to the data; `twin` names the presets
    that the static picture shows at their end.
    """

    _at_work: weakref.ref[GANLab] | None = None  # the one lab that trains

    def __init__(
        self,
        features: Tensor | None = None,
        *,
        preset: str = "collapse",
        twin: Sequence[str] = ("collapse", "healthy"),
    ):
        import ipywidgets as w

        wide = {
            "style": {"description_width": "110px"},
            "layout": w.Layout(width="400px", max_width="100%"),
        }

        def choice(text: str, options: Any, value: Any = None) -> Any:
            return w.Dropdown(options=options, value=value, description=text, **wide)

        def slider(text: str, options: Sequence[float], value: float) -> Any:
            shown = [(f"{option:g}", option) for option in options]
            return w.SelectionSlider(
                options=shown, value=value, description=text, **wide
            )

        def button(text: str, icon: str, act: Any) -> Any:
            made = w.Button(description=text, icon=icon, layout=w.Layout(width="120px"))
            made.on_click(act)
            return made

        self.features, self.twin = features, tuple(twin)
        self._due, self._end = 0, None
        self._hint: str | None = None
        self.task: asyncio.Task | None = None
        self.game: Game | None = None
        self.preset = w.ToggleButtons(
            options=list(PRESETS),
            value=preset,
            description="Preset",
            style={"button_width": "135px", "description_width": "60px"},
            layout=w.Layout(width="100%"),
        )
        self.question = w.HTML()
        self.answer = w.RadioButtons(
            options=PRESETS[preset].answers,
            value=None,
            description="I expect",
            orientation="horizontal",
            style={"description_width": "60px"},
            layout=w.Layout(width="100%"),
        )
        self.train = w.ToggleButton(
            False, description="Train", icon="play", button_style="primary"
        )
        self.train.layout.width = "120px"
        self.step = button("One step", "step-forward", self.on_step)
        self.restart = button("Start over", "undo", self.on_restart)
        self.clear = button("Clear points", "eraser", self.on_clear)
        names = [*MADE, DRAWN] + ([] if features is None else [FEATURES])
        self.data = choice("Data", names, "ring")
        self.few = choice("Training points", list(FEW.items()))
        self.loss = choice("Loss", list(LOSSES), "non-saturating")
        self.rate_d = slider("Learning rate D", RATES, 2e-3)
        self.rate_g = slider("Learning rate G", RATES, 2e-3)
        self.k = w.IntSlider(1, min=1, max=10, description="D steps for one", **wide)
        self.r1 = slider("R1 penalty", (0.0, 0.1, 0.3, 1.0, 3.0), 0.0)
        self.clip = slider("Clip weights at", (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), 0.01)
        self.seed = w.IntSlider(0, min=0, max=9, description="Seed", **wide)
        self.speed = slider("Steps a picture", (1, 5, 10, 20, 50), 10)
        self.who = w.ToggleButtons(
            options=PLAYERS,
            description="Who learns",
            style={"button_width": "84px", "description_width": "110px"},
            layout=w.Layout(width="400px", max_width="100%"),
        )
        self.ema = w.Checkbox(True, description="Mean of G (EMA)", **wide)
        self.plane = Plane()
        self.status, self.curves, self.message = (w.HTML() for _ in range(3))

        for knob in (self.data, self.few, self.loss, self.seed):
            knob.observe(self.on_new, "value")
        for knob in (self.rate_d, self.rate_g, self.k, self.r1, self.clip, self.ema):
            knob.observe(self.on_turn, "value")
        self.who.observe(self.on_turn, "value")
        self.preset.observe(self.on_preset, "value")
        self.train.observe(self.on_train, "value")
        self.plane.observe(self.on_points, "points")
        self.box = self._arranged(w)
        self.on_preset()
        self._stop_other()

    def _arranged(self, w: Any) -> Any:
        """Question above; plane and knobs beside each other; the curves below."""

        def heading(text: str) -> Any:
            return w.HTML(f'<b style="font-size:13px">{text}</b>')

        left = w.VBox(
            [
                w.HBox([self.train, self.step, self.restart]),
                self.plane,
                w.HTML(gan_lab_picture.legend()),
            ]
        )
        right = w.VBox(
            [
                heading("Act at once"),
                self.who,
                self.rate_d,
                self.rate_g,
                self.k,
                self.r1,
                self.clip,
                self.ema,
                self.speed,
                heading("Start a new game"),
                self.data,
                self.clear,
                self.few,
                self.loss,
                self.seed,
            ],
            layout=w.Layout(margin="0 0 0 8px"),
        )
        row = w.Layout(flex_flow="row wrap")
        return w.VBox(
            [
                self.preset,
                self.question,
                self.answer,
                self.message,
                w.HBox([left, right], layout=row),
                self.curves,
                self.status,
                slider_names(),
            ]
        )

    # --- callbacks

    def on_preset(self, change: Any = None) -> None:
        """A preset was chosen: knobs go there, a question is asked, nothing trains."""
        if self._setting or self.preset.value is None:
            return
        self.train.value = False
        preset = PRESETS[self.preset.value]
        usual = {"loss": "non-saturating", "k": 1, "r1": 0.0, "clip": 0.01, "ema": True}
        with self.as_one():
            for name, value in (usual | preset.settings).items():
                getattr(self, name).value = value
            self.data.value, self.few.value = "ring", preset.few or 0
            self.who.value = preset.who
            self.speed.value = 5 if preset.steps <= 200 else 10
        self._ask()
        self._new_game()

    def _ask(self) -> None:
        preset = PRESETS[self.preset.value]
        self.question.value = f"<b>{html.escape(preset.question)}</b>"
        with self.answer.hold_trait_notifications():
            self.answer.options, self.answer.value = preset.answers, None
        self.answer.layout.display = ""
        self.answer.disabled = False
        self._end = preset.steps

    def _leave_preset(self) -> None:
        """From here the settings are the person's own: no question, no end."""
        if self.preset.value is None:
            return
        with self.as_one():
            self.preset.value = None
        self.question.value, self._end = "", None
        self.answer.layout.display = "none"

    def on_new(self, change: Any = None) -> None:
        """A knob was turned that belongs to another game."""
        if not self._setting:
            if change is None or change["owner"] is not self.seed:
                self._leave_preset()
            elif self.preset.value is not None:
                self.train.value = False
                self._ask()
            self._new_game()

    def on_restart(self, _: Any = None) -> None:
        """The same game from its start; with a preset, the question again."""
        self.train.value = False
        if self.preset.value is not None:
            self._ask()
        self._new_game()

    def on_turn(self, change: Any = None) -> None:
        """A knob was turned that acts at once, also while it trains."""
        if not self._setting:
            if change is None or change["owner"] is not self.ema:
                self._leave_preset()
            self._set_knobs()
            self.redraw()

    def on_step(self, _: Any = None) -> None:
        """One step, and a picture of it."""
        if self._may_train():
            self._due = 1
        self.redraw()

    def on_points(self, change: Any = None) -> None:
        """A point was put or taken away: the networks go on with what is there now."""
        if self._setting or self.data.value != DRAWN:
            return
        if self.game is None or not self.plane.points:
            self._new_game()
        else:
            self.game.use(gan_lab.drawn_data(self.plane.points))
            self.redraw()

    def on_clear(self, _: Any = None) -> None:
        """Nothing is left of the drawing."""
        self.train.value = False
        self.plane.points = []

    def on_train(self, change: Any = None) -> None:
        """Train or pause. Needs the running loop of a kernel."""
        if not self.train.value:
            task, self.task = self.task, None
            if task is not None:
                task.cancel()
            self.train.description, self.train.icon = "Train", "play"
            return
        if not self._may_train():
            self.train.value = False
            self.redraw()
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._hint = "Training needs a notebook; gan_lab_presets.play needs none."
            self.train.value = False
            self.redraw()
            return
        self._stop_other()
        GANLab._at_work = weakref.ref(self)
        self.train.description, self.train.icon = "Pause", "pause"
        self.task = loop.create_task(self._training())

    def _stop_other(self) -> None:
        """One lab trains at a time: the other's cell may have been run again."""
        other = GANLab._at_work and GANLab._at_work()
        if other is not None and other is not self:
            other.train.value = False

    def _may_train(self) -> bool:
        """False, with a hint, where a prediction or the points are missing."""
        if self.game is None:
            self._hint = "There is nothing to learn yet: draw some points."
        elif self.preset.value is not None and self.answer.value is None:
            self._hint = "First say what you expect."
        return self._hint is None

    # --- the game

    def _new_game(self) -> None:
        self.clear.layout.display = "" if self.data.value == DRAWN else "none"
        self.plane.drawing = self.data.value == DRAWN
        self.few.disabled = self.data.value not in MADE
        try:
            data = self._data()
        except ValueError as problem:
            self.train.value = False
            self.game, self._hint = None, f"{problem}"[:1].upper() + f"{problem}"[1:]
        else:
            self.game = Game(data, loss=self.loss.value, seed=self.seed.value)
            self._set_knobs()
        self.redraw()

    def _data(self) -> gan_lab.Data:
        if self.data.value == DRAWN:
            return gan_lab.drawn_data(self.plane.points)
        if self.data.value == FEATURES:
            return gan_lab.feature_data(self.features)
        return gan_lab.made_data(
            self.data.value, self.few.value or None, self.seed.value
        )

    def _set_knobs(self) -> None:
        wasserstein = LOSSES[self.loss.value] is None
        self.r1.disabled, self.clip.disabled = wasserstein, self.loss.value != CLIPPED
        if self.game is not None:
            for name in ("rate_g", "rate_d", "k", "r1", "clip", "ema"):
                setattr(self.game, name, getattr(self, name).value)

    async def _training(self) -> None:
        """Slices of a few steps, one picture each, until somebody pauses.

        Between two slices the kernel reads its messages. The next picture waits for
        the page to have painted the last one, so that none is ever queued.
        """
        loop = asyncio.get_running_loop()
        last_seen, painted = loop.time(), self.plane.painted
        try:
            while self.train.value:
                self._due = self.speed.value
                if self._end is not None:
                    self._due = min(self._due, self._end - self.game.steps)
                self.redraw()
                if self._end is not None and self.game.steps >= self._end:
                    self._tell()
                    break
                await asyncio.sleep(0.002)
                sent = loop.time()
                while (
                    self.plane.painted < self.plane.frame
                    and loop.time() < sent + UNPAINTED_S
                ):
                    await asyncio.sleep(0.005)
                if self.plane.painted != painted:  # an older one, where the way is long
                    last_seen, painted = loop.time(), self.plane.painted
                elif loop.time() > last_seen + UNSEEN_S:
                    self._hint = "Paused: nobody was looking."
                    break
        finally:
            if self.task is asyncio.current_task():  # else another run has begun
                self.task = None
                self.train.value = False
                if self._hint:
                    self.redraw()

    def _tell(self) -> None:
        """What was expected, and what was measured."""
        preset, history = PRESETS[self.preset.value], self.game.history
        said, found = self.answer.value, preset.answers[preset.outcome(history)]
        verdict = "As you expected" if said == found else "Not as you expected"
        self.question.value += (
            f'<div role="status" style="margin-top:.3em">{verdict}: '
            f"<b>{html.escape(found)}</b>. {html.escape(preset.found(history))}</div>"
        )
        self.answer.disabled, self._end = True, None

    # --- pictures

    def draw(self) -> str | None:
        """Train what is due, and show where the game stands."""
        hint, self._hint = self._hint, None
        steps, self._due = self._due, 0
        if self.game is None:
            self._send(gan_lab_picture.blank(), "An empty plane.")
            self.curves.value = self.status.value = ""
            return hint
        if steps:
            self.game.advance(steps, self.who.value)
        look = self.game.look()
        alt = gan_lab_picture.describe(self.game, look.numbers)
        self._send(gan_lab_picture.paint(look), alt)
        self.curves.value = gan_lab_picture.curves(self.game)
        self.status.value = (
            f'<div style="font-size:12px;line-height:1.4">{html.escape(alt)}</div>'
        )
        return hint

    def _send(self, pixels: Any, alt: str) -> None:
        with self.plane.hold_sync():  # picture, text and number in one message
            self.plane.picture = gan_lab_picture.to_png(pixels)
            self.plane.alt = alt
            self.plane.frame += 1

    def alt(self) -> str:
        return self.plane.alt if runtime.has_front_end() else _twin(self.twin)[1]

    def static_png(self) -> bytes:
        """Where somebody looks, what they see; else the presets of `twin`."""
        return self.plane.picture if runtime.has_front_end() else _twin(self.twin)[0]
