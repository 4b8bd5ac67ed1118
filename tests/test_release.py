"""`make release`: what students, instructors and readers download."""

import io
import re
import shutil
import zipfile
from pathlib import Path

import nbformat
import pytest
import release as releasing
from release import release
from test_labs_build import letters, secret_letters

ROOT = Path(__file__).resolve().parent.parent
LABS = ["lab_3_optimizers", "lab_6_dropout"]
# What is made of labs, in the students' zip and in the site. Elsewhere, a line like `return result`
# is nobody's secret.
OF_LABS = re.compile(r"README.md|labs/.*\.(ipynb|html)|_downloads/.*ipynb|_sources/|searchindex.js")
SITES = [ROOT / "_build" / "html", ROOT / "_build" / "quick" / "html"]


@pytest.fixture(scope="module")
def zips(
    copied_kernels: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, bytes]]:
    """Release two labs and the site that was built last; return the content of each zip."""
    folder = tmp_path_factory.mktemp("release")
    (folder / "labs").mkdir()
    for lab in LABS:
        shutil.copy(ROOT / "labs" / f"{lab}.md", folder / "labs")
    site = next((site for site in SITES if (site / "index.html").exists()), folder / "site")
    if not site.exists():
        site.mkdir()
        (site / "index.html").write_text("A site.")
        (site / "searchindex.js").write_text("Search.setIndex({})")
    release(sorted((folder / "labs").glob("*.md")), folder / "dist", site, seed=5)
    return {path.stem.split("-")[-1]: files(path) for path in (folder / "dist").iterdir()}


def files(path: Path | io.BytesIO) -> dict[str, bytes]:
    """What a zip holds, without the folder around it; what a wheel in it holds, too."""
    content = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            content[name.partition("/")[2] if isinstance(path, Path) else name] = data
            if name.endswith(".whl"):
                content |= files(io.BytesIO(data))
    return content


def test_there_is_one_for_students_one_for_instructors_and_the_site(
    zips: dict[str, dict[str, bytes]],
) -> None:
    assert set(zips) == {"students", "instructors", "site"}
    for lab in LABS:
        assert f"labs/{lab}.ipynb" in zips["students"]
        assert {f"solutions/{lab}.ipynb", f"grading/{lab}.ipynb"} <= set(zips["instructors"])
    assert "trainwell/datasets/files/concrete.csv" in zips["students"]
    assert "index.html" in zips["site"]
    assert "--seed 4711" in zips["instructors"]["README.md"].decode()


def test_nothing_of_a_solution_is_for_students_or_readers(
    zips: dict[str, dict[str, bytes]],
) -> None:
    secrets = secret_letters([ROOT / "labs" / f"{lab}.md" for lab in LABS])
    for kind in ("students", "site"):
        looked_at = [name for name in zips[kind] if OF_LABS.match(name)]
        assert looked_at
        for name in looked_at:
            text = letters(zips[kind][name].decode())
            assert [secret for secret in secrets if secret in text] == [], name
    # The rest of the students' zip is the package, which has no lab in it.
    package = {name for name in zips["students"] if not OF_LABS.match(name)}
    assert [name for name in package if "lab_" in name] == []
    solved = letters(zips["instructors"]["solutions/lab_3_optimizers.ipynb"].decode())
    own = secret_letters([ROOT / "labs" / "lab_3_optimizers.md"])
    assert sum(secret in solved for secret in own) > 0.8 * len(own)  # the test can find them


def test_solutions_are_executed_and_the_seed_is_in_the_checks(
    zips: dict[str, dict[str, bytes]],
) -> None:
    instructors = zips["instructors"]
    solved = nbformat.reads(instructors["solutions/lab_3_optimizers.ipynb"].decode(), 4)
    assert any(cell.get("outputs") for cell in solved.cells)
    assert "seed = 5" in instructors["grading/lab_3_optimizers.ipynb"].decode()
    assert "`seed = 5`" in instructors["README.md"].decode()
    rubrics = instructors["rubrics.md"].decode()
    assert rubrics.count("### Exercise") == 14
    assert "- 4 points: its held-back check passes." in rubrics


def test_a_zip_is_the_same_whenever_its_files_are(tmp_path: Path) -> None:
    for name, content in (("a", {"x": b"1", "y": b"2"}), ("b", {"y": b"2", "x": b"1"})):
        (tmp_path / name).mkdir()
        releasing.write_zip(tmp_path / name / "all.zip", content)
    assert (tmp_path / "a/all.zip").read_bytes() == (tmp_path / "b/all.zip").read_bytes()
    assert releasing.wheel() == releasing.wheel()


def test_without_a_book_it_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release([], tmp_path / "dist", tmp_path / "nowhere")
    assert "run 'make book' first" in capsys.readouterr().out
    assert len(list((tmp_path / "dist").iterdir())) == 2
