"""Small notebooks that `run` can execute, for the tests of `run` and its jobs."""

import json

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = (
    'import os\nbudget = os.environ.get("COURSE_BUDGET", "lab")\n'
    'dataset = "phantom"\nseed = 0\nrate = 0.1'
)
REPORT = (
    "from IPython.display import display\n"
    'MIME = "application/vnd.course.report+json"\n'
    "display({MIME: dict(score=float(seed), name='x')}, raw=True)"
)


def lesson(*sources, minutes=None):
    """A small notebook with a title and a parameters cell."""
    cells = [
        new_markdown_cell("# 90 A title\n\nA summary."),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
    ]
    notebook = new_notebook(cells=[*cells, *map(new_code_cell, sources)])
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata |= {"kernelspec": kernel, "course": {"minutes": minutes or {}}}
    return notebook


def card_of(folder, name="90_first"):
    return json.loads((folder / "cards" / f"{name}.json").read_text("utf-8"))
