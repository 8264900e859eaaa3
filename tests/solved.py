"""The exercises of all lessons, solved as they are there, and what cells know there."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from course_lib import submissions
from course_lib.exercises import exercises
from course_lib.sources import lessons, read_source


class Solved(NamedTuple):
    """One exercise: its function, the cell with and without the answer, known names."""

    name: str
    source: str
    stub: str
    names: Mapping[str, Any]

    def run(self, source: str | None = None) -> Any:
        """The object that the solved cell, or another `source` of it, defines."""
        space = dict(self.names)
        exec(self.source if source is None else source, space)
        return space[self.name]


def course() -> dict[str, Solved]:
    """{exercise number: the exercise} of the whole course."""
    found = {}
    for lesson in lessons():
        notebook, names = read_source(lesson.source), submissions.sheet(lesson).names
        for i, task in exercises(notebook):
            cell = notebook.cells[i].source
            found[task.id] = Solved(task.name, cell, task.stub, names)
    return found
