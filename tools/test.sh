#!/usr/bin/env bash
# All checks: `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export TF_FORCE_GPU_ALLOW_GROWTH=true # the processes below share a GPU

missing=()
# The shell is a Chromium that can do without windows alone: it does so in two thirds of the time.
command -v chromium-headless-shell chromium chromium-browser google-chrome >/dev/null ||
  missing+=(chromium-headless-shell)
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

# As `make book` does: get the data, and say what stands in for those that can't be had.
python -m trainwell data --fetch --retry-after 6

# The chapters run first, and what their cells show makes the site that the browser looks at. All
# other checks run beside them, for both often wait: for a kernel, a browser, a limit of time.
chapters_and_site() {
  # What is not here by now is not asked for again.
  TRAINWELL_OFFLINE=1 python -m pytest tests/test_chapters.py --durations 1
  TRAINWELL_PROFILE=quick python tools/book.py
  # The tests of a page stay in one process, which opens it once.
  python -m pytest -n 3 --dist loadgroup --durations 3 tests/test_site.py
}
mkdir -p _build
set -m # a process group of its own, so that an interrupt ends all of it
chapters_and_site >_build/test-site.log 2>&1 &
set +m
trap "kill -- -$! 2>/dev/null || true" EXIT
tools/lint.sh
status=0
# A file's tests stay in one process: they share fixtures, and TensorFlow starts slowly. The files
# go in their order, for the longest have few tests, and would come last.
python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile --no-loadscope-reorder --durations 5 \
  --ignore tests/test_chapters.py --ignore tests/test_site.py "$@" || status=$?
echo "test: waiting for the chapters and the site"
wait $! || status=$?
cat _build/test-site.log
exit "$status"
