"""`python3 -m course_lib COMMAND`: the one way into the course.

The standard library alone until the environment exists; then the command runs inside
it. Written so that an old Python reads it far enough to say that it is too old.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "This course needs Python 3.11 or newer; this is Python %d.%d (%s).\n"
        "Install one from python.org, then run it by name: python3.12 -m course_lib"
        % (sys.version_info[0], sys.version_info[1], sys.executable)
    )

import argparse
from pathlib import Path

if not __package__:  # started as `python3 /some/folder/course_lib`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from course_lib import bootstrap, doctor
from course_lib.base import LessonError

EXAMPLES = """examples:
  python3 -m course_lib run                  set up, run every lesson in minutes
  python3 -m course_lib run 01 --budget lab -p dataset=pneumoniamnist --data DIR
  python3 -m course_lib run 01 02 --grid seed=0,1,2 --grid image_size=28,32 --workers 2
  python3 -m course_lib lab                  open the lessons in JupyterLab
  python3 -m course_lib test                 set up, then prove that all of it works
  python3 -m course_lib doctor               what is missing, and how to mend it
"""


def parser() -> argparse.ArgumentParser:
    """The command line: run, lab, grade, test, doctor; for maintainers build, adopt."""
    top = argparse.ArgumentParser(
        prog="python3 -m course_lib",
        description="A course on generative models for medical images.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="execute lessons; pages and a report")
    run.add_argument("lessons", nargs="*", metavar="NN", help="lessons (default: all)")
    run.add_argument(
        "--budget",
        default="smoke",
        metavar="NAME",
        help="smoke: minutes, from shipped weights (default); lab: trains on a "
        "laptop; full: for a GPU",
    )
    run.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter of the lessons, e.g. dataset=pneumoniamnist, seed=1",
    )
    run.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="run once for each value; several grids give every combination, and a "
        "table with means over the seeds",
    )
    run.add_argument("--data", metavar="DIR", help="folder that holds real data sets")
    run.add_argument("--out", metavar="DIR", help="where results go (default: build)")
    run.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="lessons at a time; they share the cores (default: 1)",
    )
    run.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="send the lessons to a Dask cluster, e.g. tcp://10.0.0.2:8786",
    )
    run.add_argument(
        "--memory",
        type=float,
        metavar="GIB",
        help="stop a lesson whose kernel takes more than this",
    )
    run.add_argument(
        "--fresh",
        action="store_true",
        help="run again what an interrupted run or a grid has finished",
    )
    run.add_argument(
        "--no-time-limit",
        action="store_true",
        help="neither fail a lesson that takes longer than its budget allows, nor stop "
        "one that takes twice as long",
    )

    test = commands.add_parser(
        "test", help="lint, unit and drift tests, integration, notebooks, browser"
    )
    test.add_argument(
        "--only",
        choices=("lint", "unit", "integration", "notebooks", "browser"),
        help="one part alone (default: all five)",
    )
    test.add_argument(
        "pytest", nargs="*", metavar="ARG", help="passed on to pytest, after --"
    )

    lab = commands.add_parser("lab", help="open JupyterLab on your own copies")
    lab.add_argument(
        "jupyter", nargs="*", metavar="ARG", help="passed on to jupyter lab, after --"
    )

    grade = commands.add_parser(
        "grade", help="grade a folder of students' notebooks, each in a sandbox"
    )
    grade.add_argument(
        "submissions", metavar="DIR", help="holds alice.ipynb or alice/03_dcgan.ipynb"
    )
    grade.add_argument(
        "--lesson", metavar="NN", help="of all notebooks (default: each says its own)"
    )
    grade.add_argument(
        "--out",
        default="grades",
        metavar="DIR",
        help="where grades go (default: grades)",
    )
    grade.add_argument(
        "--workers", type=int, metavar="N", help="at once (default: one a core)"
    )
    grade.add_argument(
        "--seconds",
        type=int,
        default=10,
        metavar="S",
        help="of the processor, for each answer (default: 10)",
    )

    check = commands.add_parser("doctor", help="what is missing, and how to mend it")
    check.add_argument("--data", metavar="DIR", help="folder that holds real data sets")

    build = commands.add_parser("build", help="make the notebooks from notebooks/src")
    build.add_argument("lessons", nargs="*", metavar="NN", help="default: all")
    build.add_argument(
        "--no-execute",
        action="store_true",
        help="only the student versions; executed notebooks stay as they are",
    )
    build.add_argument(
        "--weights",
        action="store_true",
        help="also keep the weights that the lessons trained as the shipped ones",
    )

    build.add_argument(
        "--site",
        action="store_true",
        help="make the web site from the executed notebooks instead",
    )
    build.add_argument(
        "--out", metavar="DIR", help="where the site goes (default: build/site)"
    )
    build.add_argument(
        "--repository",
        metavar="OWNER/NAME",
        help="the course on GitHub, for the site's links to Colab and Binder",
    )
    build.add_argument(
        "--schedule",
        metavar="FILE",
        help="a CSV file lesson,release,due: the site leaves out what is not released, "
        "and answers until they are due",
    )
    build.add_argument(
        "--nbgrader",
        metavar="DIR",
        help="write nbgrader's source/ folder into DIR instead, with solutions",
    )
    build.add_argument(
        "--notes",
        metavar="DIR",
        help="write notes for who teaches the lessons into DIR instead",
    )

    adopt = commands.add_parser("adopt", help="turn an edited notebook into source")
    adopt.add_argument("lesson", metavar="NN")
    adopt.add_argument(
        "--force", action="store_true", help="even where the source has changed too"
    )
    return top


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code.

    Raises SetupError or LessonError: what is said in one line, without a traceback.
    """
    options = parser().parse_args(arguments)
    if options.command == "build" and not options.site:
        for name in ("out", "repository", "schedule"):
            if getattr(options, name):
                parser().error(f"--{name} is of the site: build --site --{name} ...")
    if options.command == "doctor":
        return doctor.main(options.data)
    extras: tuple[str, ...] = ("test",) if options.command == "test" else ()
    if options.command == "run" and options.dask:
        extras = ("cluster",)
    python = bootstrap.ensure(extras)
    if not bootstrap.is_running(python):
        return bootstrap.hand_over(python, arguments)
    bootstrap.prepare_children()
    bootstrap.without_iri_grammars()
    # From here on the packages are there.
    if options.command == "run":
        from course_lib import runner

        return runner.run(
            options.lessons,
            budget=options.budget,
            parameters=options.parameter,
            grid=options.grid,
            data=options.data,
            out=options.out,
            workers=options.workers,
            dask=options.dask,
            memory=options.memory,
            fresh=options.fresh,
            time_limit=not options.no_time_limit,
        )
    if options.command == "test":
        from course_lib import runner

        return runner.test(options.only, options.pytest)
    if options.command == "lab":
        from course_lib import runner

        return runner.lab(options.jupyter)
    if options.command == "build" and options.site:
        from course_lib import website

        return website.command(options.out, options.repository, options.schedule)
    if options.command == "grade":
        from course_lib import grading

        return grading.grade(
            options.submissions,
            out=options.out,
            lesson=options.lesson,
            workers=options.workers,
            seconds=options.seconds,
        )
    if options.command == "build" and options.nbgrader:
        from course_lib import assignments

        return assignments.nbgrader_command(options.lessons, options.nbgrader)
    if options.command == "build" and options.notes:
        from course_lib import teaching

        return teaching.notes_command(options.lessons, options.notes)
    from course_lib import notebooks

    if options.command == "build":
        return notebooks.build_command(
            options.lessons, execute=not options.no_execute, weights=options.weights
        )
    return notebooks.adopt_command(options.lesson, force=options.force)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (bootstrap.SetupError, LessonError) as problem:
        sys.exit(f"course_lib: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
