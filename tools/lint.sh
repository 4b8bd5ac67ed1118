#!/usr/bin/env bash
# Style, types, spelling and prose: `make lint`. With --fix, ruff mends what it can.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

# The cells of the chapters and the labs are checked as notebooks, in a build folder.
notebooks=_build/lint
rm -rf "$notebooks" && mkdir -p "$notebooks"
python - chapters/*.md labs/lab_*.md <<END
import pathlib, sys
import jupytext
for source in map(pathlib.Path, sys.argv[1:]):
    jupytext.write(jupytext.read(source), f"$notebooks/{source.stem}.ipynb")
END

if [ "${1:-}" = --fix ]; then
  ruff check --quiet --fix . && ruff format --quiet .
  for chapter in chapters/*.md labs/lab_*.md; do
    jupytext --quiet --pipe "ruff format --quiet --line-length 74 -" "$chapter"
    sed -i.bak '/^    \(jupytext\|format\)_version:/d' "$chapter" && rm "$chapter.bak"
  done
  exit
fi

ruff check --quiet .
ruff format --quiet --check . || { echo "lint: run 'make format'" >&2; exit 1; }
ruff check --quiet --no-force-exclude --ignore D100,D103,E402,B018,F704 "$notebooks"
ruff format --quiet --check --line-length 74 "$notebooks" || { echo "lint: a cell of a chapter or lab: run 'make format'" >&2; exit 1; }
mypy --no-error-summary --show-traceback # else a full disk is an INTERNAL ERROR, without a reason
codespell --quiet-level 2 $(git ls-files '*.md' '*.py' '*.sh' '*.yml' '*.toml' '*.bib' '*.css' Makefile)
python tools/prose.py
echo "lint: style, types, spelling and prose are clean"
