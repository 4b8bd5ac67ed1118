"""The command line: `trainwell data`, `sabotage`, `labs build` and `labs grade`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainwell._checks import check_positive, check_whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: The words of the command line; None means those of this process.
    """
    parser = argparse.ArgumentParser(prog="trainwell")
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser(
        "data",
        help="list the data sets: where each was found and whether its content was checked",
        description="List the data sets: where each was found and whether it was checked.",
    )
    data.add_argument("--fetch", action="store_true", help="download what is missing")
    data.add_argument(
        "--retry-after",
        type=float,
        default=0,
        metavar="HOURS",
        help="with --fetch: leave a set alone that could not be had in the last HOURS",
    )
    sabotage = commands.add_parser(
        "sabotage",
        help="spoil the evidence of every claim of a built book: each must fail",
        description="Spoil the evidence of every claim of a built book: each must fail.",
    )
    sabotage.add_argument("file", help="the claims that the build collected, a JSON file")
    labs = commands.add_parser(
        "labs",
        help="build the labs, and grade what students send",
        description="Build the labs, and grade what students send (extra `instructor`).",
    )
    actions = labs.add_subparsers(dest="action", required=True)
    build = actions.add_parser(
        "build",
        help="try every check, then write the student, solution and grading notebooks",
        description="Try every check of a lab, then write its notebooks and its page.",
    )
    build.add_argument("sources", nargs="*", type=Path, help="default: all of labs/lab_*.md")
    build.add_argument(
        "--out",
        type=Path,
        default=Path("_build/labs"),
        help="the folder for the solution and the grading notebooks (default: %(default)s)",
    )
    build.add_argument(
        "--seed",
        type=int,
        default=0,
        help="draws the inputs of the held-back checks (default: %(default)s)",
    )
    grade = actions.add_parser(
        "grade",
        help="grade a folder or a zip of submissions",
        description="Grade a folder or a zip of submissions. Run it again to go on, to add late "
        "ones, or to take in the points that people gave: nothing is graded twice.",
    )
    grade.add_argument("folder", type=Path, help="the folder or the zip of submissions")
    grade.add_argument("--lab", type=Path, help="the lab's source, or its grading notebook")
    grade.add_argument("--out", type=Path, help="where results go (default: grades/LAB)")
    grade.add_argument("--seed", type=int, help="draws the checks' inputs (default: once, by lot)")
    grade.add_argument("--jobs", type=int, help="how many at a time (default: one for each core)")
    grade.add_argument("--seconds", type=float, default=30, help="for each cell (default: 30)")
    grade.add_argument("--memory", type=int, default=4096, help="in MB (default: 4096)")
    grade.add_argument("--scheduler", help="the address of a Dask scheduler whose workers grade")
    grade.add_argument("--unsafe", action="store_true", help="run students' code unboxed")
    options = parser.parse_args(arguments)

    if options.command == "sabotage":
        from trainwell.claims import main_sabotage

        return main_sabotage(options.file)

    if options.command == "labs":
        try:
            return (_build if options.action == "build" else _grade)(options)
        except ModuleNotFoundError as error:
            print(
                f"{error}. In a checkout, install the extra: pip install -e '.[instructor]'",
                file=sys.stderr,
            )
            return 1

    from trainwell.datasets.report import show

    try:
        return show(fetch_missing=options.fetch, retry_after=options.retry_after)
    except KeyboardInterrupt:
        print("Interrupted. Nothing is half-made: run the command again.", file=sys.stderr)
        return 130


def _build(options: argparse.Namespace) -> int:
    from trainwell.labs.build import main_build

    return main_build(options.sources, options.out, options.seed)


def _grade(options: argparse.Namespace) -> int:
    from trainwell.labs.grade import main
    from trainwell.labs.sandbox import MEBIBYTE, Limits

    try:
        if options.jobs is not None:
            check_whole("--jobs", options.jobs, 1)
        check_positive("--seconds", options.seconds)
        check_whole("--memory", options.memory, 1)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return main(
        options.folder,
        options.lab,
        options.out,
        seed=options.seed,
        jobs=options.jobs,
        limits=Limits(cell_seconds=options.seconds, memory=options.memory * MEBIBYTE),
        unsafe=options.unsafe,
        scheduler=options.scheduler,
    )


if __name__ == "__main__":
    sys.exit(main())
