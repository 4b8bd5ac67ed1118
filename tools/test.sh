#!/usr/bin/env bash
# All checks: `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

if ! command -v chromium chromium-browser google-chrome >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "test: installing Debian's chromium for the browser checks"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null
  else
    echo "test: no Chromium is installed: the browser checks will be skipped." >&2
    echo "      To run them: apt-get install chromium, or another Chrome or Chromium." >&2
  fi
fi

tools/lint.sh
# First the site in the quick profile, for the browser. The chapters' notebooks, which make the same
# runs, take them from there.
TRAINWELL_RUNS="$PWD/_build/test-runs" TRAINWELL_PROFILE=quick python tools/book.py
# A file's tests stay in one process: they share fixtures, and TensorFlow starts slowly.
python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile --durations 5 "$@"
