"""The MR console to touch (lesson 00): `mr_console.js` over `course_lib.mr_console`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from course_lib import mr_console
from course_lib.browser_widget import BrowserWidget
from course_lib.phantoms import PROTOCOLS

T1 = dict(zip(("tr", "te", "ti"), PROTOCOLS["T1"], strict=True))


class MRPhysics(BrowserWidget):
    """TR, TE, TI, field and noise on tissue maps: slice, signal curves, three tasks.

    maps: (T, H, W) tissue fractions, from `phantoms.subject_maps`. The console starts
    with the protocol T1 at 1.5 T, and the static picture shows that.
    """

    module = Path(__file__).with_name("mr_console.js")
    title = "MR console"
    height = 480

    def __init__(self, maps: np.ndarray):
        self.maps = np.asarray(maps)
        self.start(mr_console.browser_values(self.maps))

    def alt(self) -> str:
        return mr_console.describe(**T1)

    def static_png(self) -> bytes:
        return mr_console.to_figure(self.maps, **T1)
