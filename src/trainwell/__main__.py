"""The command line: `python -m trainwell data` and `python -m trainwell sabotage`."""

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: The words of the command line; None means those of this process.
    """
    parser = argparse.ArgumentParser(prog="python -m trainwell")
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
    options = parser.parse_args(arguments)

    if options.command == "sabotage":
        from trainwell.claims import main_sabotage

        return main_sabotage(options.file)

    from trainwell.datasets.report import show

    try:
        return show(fetch_missing=options.fetch)
    except KeyboardInterrupt:
        print("Interrupted. Nothing is half-made: run the command again.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
