"""The labs and the package on Colab's versions, in an environment that has exactly those.

`pyproject.toml` lists them: the group `colab`. The environment is made when these tests run, and
kept in `_build/colab`. The package comes as a wheel and without its dependencies, as on Colab.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import notebooks
import pytest
from nbclient import NotebookClient
from test_labs_build import LABS
from traitlets.config import Config

from trainwell.labs.build import solved_notebook
from trainwell.labs.source import read_lab

ROOT = Path(__file__).resolve().parent.parent
COLAB = ROOT / "_build" / "colab"
PYTHON = COLAB / "bin" / "python"
# It has Plotly's figures. The labs have Keras and Matplotlib.
CHAPTER = "chapters/11_3_0_surfaces"
# What uv says when there is no index, and not when there is no such version.
NO_INDEX = ["error sending request", "failed to fetch", "dns error", "network was disabled"]


def uv(*arguments: object) -> None:
    """Run uv; skip the test where no package index can be reached."""
    # An environment made by pyenv shows its Python 3.12 only when it is asked for.
    environment = {**os.environ, "PYENV_VERSION": "3.12"}
    command = [sys.executable, "-m", "uv", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode and any(words in done.stderr.lower() for words in NO_INDEX):
        pytest.skip("Colab's versions can't be installed: no package index can be reached")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the environment, put the package's wheel into it, and describe its kernel."""
    folder = tmp_path_factory.mktemp("colab")
    key = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    made = COLAB / "made-from"
    if not made.exists() or made.read_text() != key:
        # Colab has 3.12; every Python that the course runs on will do.
        ask = [shutil.which("python3.12") or "false", "-V"]
        found = subprocess.run(ask, env={**os.environ, "PYENV_VERSION": "3.12"})
        python = sys.executable if found.returncode else "3.12"
        uv("venv", "--clear", "--no-python-downloads", "--python", python, COLAB)
        uv("pip", "install", "--python", PYTHON, "--group", "colab", "-r", "pyproject.toml")
        made.write_text(key)
    wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(wheel, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    uv("pip", "install", "--python", PYTHON, "--no-deps", "--reinstall", built)
    spec = folder / "kernels" / "colab" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [str(PYTHON), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": "Colab", "language": "python"}))
    return folder


@pytest.fixture
def execute(kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a notebook on Colab's versions; a cell that raises fails."""
    monkeypatch.setenv("JUPYTER_PATH", str(kernels))
    monkeypatch.setenv("TRAINWELL_PROFILE", "quick")
    monkeypatch.delenv("PYTHONPATH", raising=False)  # the wheel counts, not the checkout

    def run(notebook: Any) -> str:
        config = Config()
        with tempfile.TemporaryDirectory() as sockets:
            # The kernel talks through private files, not ports: no other program can collide.
            config.KernelManager.transport = "ipc"
            config.KernelManager.ip = f"{sockets}/kernel"
            client = NotebookClient(
                notebook,
                config=config,
                kernel_name="colab",
                timeout=300,
                resources={"metadata": {"path": str(tmp_path)}},
            )
            client.execute()
        setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
        return "".join(output.text for output in setup.outputs)

    return run


def test_the_versions_are_colabs(kernels: Path) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    code = "import json, sys; from importlib.metadata import version\n"
    code += "print(json.dumps([version(name) for name in sys.argv[1:]]))"
    pinned = [pin.split("==") for pin in groups["colab"] if "==" in pin]
    names, versions = zip(*pinned, strict=True)
    done = subprocess.run([PYTHON, "-c", code, *names], capture_output=True, check=True)
    assert json.loads(done.stdout) == list(versions)


@pytest.mark.parametrize("source", LABS, ids=lambda path: path.stem)
def test_a_solved_lab_runs(execute: Any, source: Path) -> None:
    printed = execute(solved_notebook(read_lab(source), seed=0))
    assert "trainwell 0." in printed
    assert "keras 3.13.2" in printed
    assert "device: " in printed


def test_a_chapter_runs(execute: Any) -> None:
    made = nbformat.from_dict(notebooks.notebook(CHAPTER))
    assert "numpy 2.0.2" in execute(made)
