#!/usr/bin/env bash
# Push what `make notebooks` made to the branch `notebooks` of a repository: its only commit.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=${1:?Give the address of the repository to push to.}
test -d _build/notebooks || { echo "Run 'make notebooks' first." >&2; exit 1; }

of=$(git describe --always 2>/dev/null || echo "the book")
history=$(mktemp -d)
trap 'rm -rf "$history"' EXIT
export GIT_DIR=$history GIT_WORK_TREE=$PWD/_build/notebooks
git init --quiet --initial-branch notebooks
git add --all
git -c user.name=publish -c user.email=publish@localhost \
  commit --quiet --message "The chapters of $of as notebooks"
git push --quiet --force "$repository" notebooks
