#!/usr/bin/env bash
# Make .venv from requirements.lock and nothing else. Run by make; safe to run again.
# GPU=1 adds the CUDA packages.
set -euo pipefail
cd "$(dirname "$0")/.."

# TensorFlow has wheels for Python 3.11 to 3.13.
suitable='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
  if command -v "$candidate" >/dev/null && "$candidate" -c "$suitable" 2>/dev/null; then
    python=$(command -v "$candidate")
    break
  fi
done
if [ -z "${python:-}" ]; then
  echo "setup: needs Python 3.11, 3.12 or 3.13; found: $("${PYTHON:-python3}" --version 2>&1 || true)." >&2
  echo "Install one of them, or name it: make book PYTHON=/path/to/python3.12" >&2
  exit 1
fi

# A disk that runs full on the way stops some tool later, with words about anything but the disk.
free=$(df -Pk . | awk 'END {print int($4 / 1000)}')
if [ ! -d .venv ] && [ "$free" -lt 4000 ]; then
  echo "setup: needs 4 GB of disk ('make test': 7 GB); free here: $free MB. Make room, and try again." >&2
  exit 1
fi

lock=requirements.lock
if [ -n "${GPU:-}" ]; then
  mkdir -p _build
  sed "s/ and extra == 'gpu'//; s/ ; extra == 'gpu'//" "$lock" >_build/requirements-gpu.lock
  lock=_build/requirements-gpu.lock
fi

echo "setup: making .venv from requirements.lock with $("$python" --version)${GPU:+, for a GPU}"
rm -f .venv/ready-*
export UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV="$PWD/.venv"
if ! .venv/bin/python -c "$suitable" 2>/dev/null; then
  rm -rf .venv
fi
if command -v uv >/dev/null; then
  uv=uv
  [ -d .venv ] || uv venv --quiet --python "$python" .venv
else
  if [ ! -x .venv/bin/python ]; then
    if ! "$python" -m ensurepip --version >/dev/null 2>&1; then
      if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing Debian's python3-venv"
        apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
      else
        echo "setup: $python has no venv module. Install it (Debian: python3-venv) or uv." >&2
        exit 1
      fi
    fi
    "$python" -m venv .venv
  fi
  uv=.venv/bin/uv
  if [ ! -x "$uv" ]; then
    # uv comes out of the lock as well: its line and the hashes below it.
    pin=$(mktemp)
    trap 'rm -f "$pin"' EXIT
    awk '/^uv==/ {inside = 1} inside {print} inside && !/\\$/ {exit}' "$lock" >"$pin"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$pin"
  fi
fi
# uv doesn't read pip's settings: a reader whose packages come from another index told pip of it.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
  index=${PIP_INDEX_URL:-}
  for with_pip in .venv/bin/python "$python"; do
    index=${index:-$("$with_pip" -m pip config get global.index-url 2>/dev/null || true)}
  done
  [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
fi
"$uv" pip sync --quiet --require-hashes "$lock"
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .
# Else the first ten processes that import TensorFlow each compile it, at the same time.
.venv/bin/python -m compileall -q -j 0 .venv/lib/python*/site-packages/{tensorflow,keras,scipy,pandas}

# A click on a chapter in JupyterLab opens it as a notebook.
settings=.venv/share/jupyter/lab/settings
mkdir -p "$settings"
cat >"$settings/overrides.json" <<'JSON'
{
  "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Jupytext Notebook"}},
  "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}
}
JSON
touch ".venv/ready-$([ -n "${GPU:-}" ] && echo gpu || echo cpu)"
