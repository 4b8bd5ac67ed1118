"""Make what people download: `make release`.

`dist/` gets three zips: for students the labs' notebooks and the package; for instructors also
the solutions, the notebooks for grading and the rubrics; and the site, if it is built. The second
is for instructors only: it never comes into git, nor near the site.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from trainwell.labs.build import address, build
from trainwell.labs.source import cells_of, read_lab

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
NAME = "training-deep-networks-well"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first day that a zip can tell: no file has a time of its own

FOR_STUDENTS = """\
# {title}: the labs

1. Install the package, in an environment of its own, with Python 3.11 to 3.13. It brings Keras,
   and in it the small data sets that the labs need:

       pip install {wheel} jupyterlab

2. Run `jupyter lab`, and open a notebook in `labs/`.
3. Write where a cell says `raise NotImplementedError`, and delete that line. The check below it
   tells at once what is off and where to read. Then hand in the notebook, under its own name.
"""
FOR_INSTRUCTORS = """\
# {title}: for instructors only

- `solutions/`: every lab solved, with its outputs
- `grading/`: the notebooks with which submissions are graded, held-back checks included
- `rubrics.md`: what figures and written answers earn
- `labs/`: what students get; `{wheel}`: the package

Grade what students sent, a folder or a zip:

    pip install '{wheel}[instructor]'
    trainwell labs grade submissions.zip --lab grading/lab_3_optimizers.ipynb

The held-back checks draw their inputs from a seed. The notebooks here say `seed = {seed}`, and
that is a place to begin, not a secret: the command puts a seed of its own there, drawn by lot at
the first run and kept in `grades/lab_3_optimizers/seed.txt`. `--seed 4711` chooses it. With one
seed in all groups, all get the same inputs; a new seed each term makes numbers learned by heart
worthless. What the checks ask stays the same: their code is public.
"""


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """Write files into a zip that is the same, byte for byte, whenever they are."""
    unfinished = path.with_name(f"{path.name}.part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(f"{path.stem}/{name}", LONG_AGO)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system, member.external_attr = 3, 0o644 << 16  # on every system
            archive.writestr(member, files[name])
    unfinished.replace(path)
    print(f"{path}: {len(files)} files, {path.stat().st_size / 1e6:.1f} MB")


def read(folder: Path, into: str = "") -> dict[str, bytes]:
    """Return all files of a folder by the name that they get in a zip."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {f"{into}{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}


def rubrics(sources: Iterable[Path]) -> str:
    """Return what each exercise earns, and for what, as Markdown."""
    parts = ["# Rubrics"]
    for source in sources:
        lab = read_lab(source)
        parts.append(f"## {lab.cells[0].source.splitlines()[0].removeprefix('# ')}")
        for exercise in lab.exercises:
            own = [cell for cell in lab.cells if cell.exercise == exercise.number]
            earned = [cell.source.strip() for cell in cells_of(own, "rubric")]
            parts.append(f"### Exercise {exercise.number}: {exercise.title}")
            parts += earned or [f"- {exercise.points} points: its held-back check passes."]
    return "\n\n".join(parts) + "\n"


def wheel() -> dict[str, bytes]:
    """Build the package's wheel: its name and its content."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        return read(Path(folder))


def release(sources: list[Path], out: Path, site: Path, seed: int = 0) -> None:
    """Write the zips.

    Args:
        sources: The labs.
        out: The folder for the zips.
        site: The built site; without one, there is no zip of it.
        seed: Draws the inputs of the held-back checks in the notebooks for instructors.

    Raises:
        LabError: If a lab does not pass its own checks.
    """
    _, version = address()
    out.mkdir(parents=True, exist_ok=True)
    package = wheel()
    words = {"title": "Training Deep Networks Well", "wheel": next(iter(package)), "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        build(sources, made, seed)
        labs = {
            f"labs/{source.stem}.ipynb": (
                source.parent / "notebooks" / f"{source.stem}.ipynb"
            ).read_bytes()
            for source in sources
        }
        students = {**package, **labs, "README.md": FOR_STUDENTS.format(**words).encode()}
        instructors = {
            **package,
            **labs,
            **read(made),
            "rubrics.md": rubrics(sources).encode(),
            "README.md": FOR_INSTRUCTORS.format(**words).encode(),
        }
    write_zip(out / f"{NAME}-{version}-students.zip", students)
    write_zip(out / f"{NAME}-{version}-instructors.zip", instructors)
    if (site / "index.html").exists():
        write_zip(out / f"{NAME}-{version}-site.zip", read(site))
    else:
        print("There is no book yet, so no zip of the site: run 'make book' first.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make what people download, in dist/.")
    parser.add_argument("--seed", type=int, default=0, help="for the held-back checks")
    release(
        sorted((ROOT / "labs").glob("lab_*.md")),
        ROOT / "dist",
        SITE,
        parser.parse_args().seed,
    )


if __name__ == "__main__":
    main()
