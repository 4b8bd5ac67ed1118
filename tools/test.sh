#!/usr/bin/env bash
# All checks: `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

missing=()
command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium)
command -v bwrap >/dev/null || missing+=(bubblewrap)
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "test: installing Debian's ${missing[*]}, for the checks in a browser and in a sandbox"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
  else
    echo "test: ${missing[*]} not installed: the checks that need it will be skipped." >&2
    echo "      To run them: apt-get install ${missing[*]}, or another Chrome or Chromium." >&2
  fi
fi

tools/lint.sh
# First the chapters: what their cells show makes the site that the browser looks at.
python -m pytest tests/test_chapters.py --durations 1
# A file's tests stay in one process: they share fixtures, and TensorFlow starts slowly. Three
# processes, for many tests wait: for a browser, a kernel, a limit of time.
python -m pytest -n "${TEST_PROCESSES:-3}" --dist loadfile --durations 5 \
  --ignore tests/test_chapters.py "$@"
