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
# First the chapters: what their cells show makes the site that the browser looks at.
python -m pytest tests/test_chapters.py --durations 1
# A file's tests stay in one process: they share fixtures, and TensorFlow starts slowly.
python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile --durations 5 \
  --ignore tests/test_chapters.py "$@"
