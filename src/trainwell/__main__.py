"""The command line: `trainwell data`, `trainwell sabotage` and `trainwell labs build`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


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
    sabotage = commands.add_parser(
        "sabotage",
        help="spoil the evidence of every claim of a built book: each must fail",
        description="Spoil the evidence of every claim of a built book: each must fail.",
    )
    sabotage.add_argument("file", help="the claims that the build collected, a JSON file")
    labs = commands.add_parser(
        "labs", help="build the labs", description="Build the labs (extra `instructor`)."
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
    options = parser.parse_args(arguments)

    if options.command == "sabotage":
        from trainwell.claims import main_sabotage

        return main_sabotage(options.file)

    if options.command == "labs":
        try:
            from trainwell.labs.build import main_build
        except ModuleNotFoundError as error:
            print(f"{error}. Install the extra: pip install 'trainwell[instructor]'")
            return 1
        return main_build(options.sources, options.out, options.seed)

    from trainwell.datasets.report import show

    try:
        return show(fetch_missing=options.fetch)
    except KeyboardInterrupt:
        print("Interrupted. Nothing is half-made: run the command again.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
