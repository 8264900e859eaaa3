"""A reader study before a person: images, keys, a clock, and the result at the end.

The browser part (`reader.js`, `reader.css`) travels with the package; it gets pixels in
their shuffled order and sends back answers. The key stays in Python.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from course_lib.browser_widget import source
from course_lib.plotting import figure_image, small_png
from course_lib.reader_answers import ANSWERS, Answers, Result, write_answers
from course_lib.reader_study import AnswerKey, Study, score_answers, simulate_reader
from course_lib.widgets import LiveWidget

_HERE = Path(__file__).parent


class Panel(anywidget.AnyWidget):
    """What the browser knows: pixels, words, sizes, and the answers that it sends.

    `answers` holds [answer, seconds] for each finished trial.
    """

    _esm = source(_HERE / "reader.js")
    _css = _HERE / "reader.css"
    kind = traitlets.Unicode().tag(sync=True)
    question = traitlets.Unicode().tag(sync=True)
    choices = traitlets.List(traitlets.Unicode()).tag(sync=True)
    images = traitlets.List(traitlets.Bytes()).tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    height = traitlets.Int().tag(sync=True)
    answers = traitlets.List(traitlets.List()).tag(sync=True)


class ReaderStudy(LiveWidget):
    """A study to be answered by keyboard, and a button that shows the result.

    `size` is about the side of an image on the screen; a pixel becomes a whole number
    of the screen's. `reader` is the number that the CSV has. Raises ValueError where
    the key is of another study.
    """

    def __init__(
        self,
        study: Study,
        key: AnswerKey,
        *,
        margin: float = 0.5,
        reader: int = 1,
        size: int = 224,
    ):
        import ipywidgets as w

        if (study.code, study.kind) != (key.code, key.kind):
            raise ValueError(f"{key!r} is not the key of {study!r}")
        self.study, self.margin, self.reader = study, margin, reader
        self._key = key  # in Python alone: the panel never gets it
        high, wide = study.pixels().shape[2:4]
        scale = max(1, round(size / max(high, wide)))
        self.panel = Panel(
            kind=study.kind,
            question=study.question,
            choices=list(ANSWERS[study.kind].values()),
            images=[png for trial in study.trials for png in trial],
            width=scale * wide,
            height=scale * high,
        )
        self.show = w.Button(
            description="Show my result",
            tooltip="d-prime and AUC with intervals, when all trials are answered",
            disabled=True,
        )
        self.again = w.Button(
            description="Start again", tooltip="forget all answers", disabled=True
        )
        self.view, self.message = w.HTML(), w.HTML()
        self.panel.observe(self.on_answers, "answers")
        self.show.on_click(self.on_show)
        self.again.on_click(self.on_again)
        buttons = w.HBox([self.show, self.again])
        self.box = w.VBox([self.panel, buttons, self.message, self.view])

    @property
    def answers(self) -> Answers:
        """What has been answered so far. Raises ValueError on what cannot be."""
        rows = self.panel.answers
        given = tuple(int(answer) for answer, _ in rows)
        seconds = tuple(float(seconds) for _, seconds in rows)
        about = self.study.code, self.study.kind
        return Answers(*about, given, seconds, self.reader)

    @property
    def finished(self) -> bool:
        """Whether every trial is answered."""
        return len(self.panel.answers) == len(self.study)

    def result(self) -> Result:
        """The answers against the key. Raises ValueError before the last answer."""
        return score_answers(self.answers, self._key, margin=self.margin)

    def save(self, path: Path | str) -> None:
        """Write the answers as CSV (`reader_answers.write_answers`)."""
        write_answers(path, self.answers)

    def on_answers(self, change: Any = None) -> None:
        """An answer came from the browser; a wrong one is shown and raised."""
        self.again.disabled = not self.panel.answers
        self.show.disabled = not self.finished
        self.view.value = ""
        self.redraw()

    def on_show(self, button: Any = None) -> None:
        """Show the result below the images."""
        if self.finished:
            self.view.value = self.result()._repr_html_()

    def on_again(self, button: Any = None) -> None:
        """Forget the answers; the same trials begin again."""
        self.panel.answers = []

    def draw(self) -> str | None:
        self.answers  # noqa: B018 - raises on an answer that cannot be
        return None

    def summary(self) -> str:
        """The person's result, or that of a simulated reader, which it says."""
        if self.finished:
            return self.result().sentence
        simulated = score_answers(
            simulate_reader(self._key, 1.0), self._key, margin=self.margin
        )
        return (
            "Nobody has answered here yet. A simulated reader with a true d-prime of 1 "
            f"got this: {simulated.sentence}"
        )

    def alt(self) -> str:
        return (
            f"Reader study of {len(self.study)} trials: {self.study.question} The "
            f"first ones are shown, without the truth. {self.summary()}"
        )

    def static_png(self) -> bytes:
        return sheet(self.study, self.summary())


def sheet(study: Study, text: str) -> bytes:
    """PNG of the first 8 images, unlabelled; the question above, a text below."""
    import matplotlib.pyplot as plt
    from PIL import Image

    pixels = study.pixels()[: 8 // len(study.trials[0])]
    pixels = pixels // 6 * 6  # 43 greys are enough here
    scale = max(1, round(76 / pixels.shape[3]))
    pixels = pixels.repeat(scale, axis=2).repeat(scale, axis=3)
    gap, high = 4, pixels.shape[2]
    wide = pixels.shape[1] * (pixels.shape[3] + gap) + 2 * gap
    width = max(640, wide * len(pixels))
    figure = plt.figure(figsize=(width / 80, (high + 92) / 80), dpi=80)
    total = high + 92
    figure.text(4 / width, 1 - 16 / total, study.question, fontsize=10, weight="bold")
    lines = "\n".join(textwrap.wrap(text, int(width / 5.4)))
    figure.text(4 / width, 48 / total, lines, fontsize=8.5, va="top")
    page = figure_image(figure)
    for column, trial in enumerate(pixels):
        for place, image in enumerate(trial):
            x = gap + column * wide + place * (image.shape[1] + gap)
            page.paste(Image.fromarray(np.asarray(image)), (x, 26))
    return small_png(page, colours=256)
