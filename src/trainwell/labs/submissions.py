"""Whose notebook is this? Submissions as students and learning platforms name them.

A folder or a zip of notebooks: one file a student, a folder a student, or the export of Moodle
(`Name_12345_assignsubmission_file_/lab.ipynb`) or Canvas (`surnamename_123_456_lab-1.ipynb`).
"""

import hashlib
import re
import stat
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

LARGEST_FILE = 100 * 2**20
LARGEST_ZIP = 4 * 2**30  # of all files together, unpacked

MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_(file|onlinetext)_?")
CANVAS = re.compile(r"(?P<name>[^_]+)_(LATE_)?(?P<id>\d+)_\d+_(?P<file>.+)", re.IGNORECASE)
# What a browser, a platform or a student adds to the name of a second version.
VERSION = re.compile(
    r"([-_ ]?\((?P<n>\d+)\)|-(?P<m>\d{1,2})|[-_ ]v(?P<v>\d+)|[-_ ](copy|final))$", re.I
)
NOT_SENT = re.compile(r"(^|/)(\.|__MACOSX/|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)


class SubmissionError(ValueError):
    """The folder or zip of submissions can't be read; the message says what to do."""


@dataclass(frozen=True)
class Submission:
    """One student's file, or what is wrong with it.

    Attributes:
        student: The student as the file's name tells, with the platform's number.
        file: The file's name inside the folder or zip.
        content: Its bytes; empty if `problem` says why it can't be graded.
        notes: What the instructor should know: other versions, say.
    """

    student: str
    file: str
    content: bytes = b""
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The SHA-256 of the content: the same file is graded once."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class _File:
    name: str
    path: Path | None  # in a folder
    order: tuple[int, float] = (0, 0.0)  # later versions are greater
    size: int = 0
    problem: str = ""
    student: str = ""
    member: zipfile.ZipInfo | None = field(default=None, repr=False)


def collect(place: Path, lab: str) -> list[Submission]:
    """Return the latest submission of every student, sorted by student.

    Args:
        place: A folder or a zip; nothing is unpacked to disk.
        lab: The name of the lab's notebook, without `.ipynb`.

    Raises:
        SubmissionError: If there is no such place, or nothing in it.
    """
    if not place.exists():
        raise SubmissionError(f"There is no {place}. Give the folder or the zip of submissions.")
    if place.is_dir():
        files = list(_in_folder(place))
        return _choose(files, lab, lambda file: file.path.read_bytes() if file.path else b"")
    if not zipfile.is_zipfile(place):
        raise SubmissionError(f"{place} is neither a folder nor a zip.")
    try:
        archive = zipfile.ZipFile(place)
    except Exception as error:  # a damaged one fails in many ways
        raise SubmissionError(f"{place} is damaged: {error!r}. Download it again.") from None
    with archive:
        files = list(_in_zip(archive))
        return _choose(files, lab, lambda file: archive.read(file.member) if file.member else b"")


def _in_folder(folder: Path) -> Iterator[_File]:
    for path in sorted(folder.rglob("*")):
        name = _composed(path.relative_to(folder).as_posix())
        if NOT_SENT.search(name) or (path.is_dir() and not path.is_symlink()):
            continue
        state = path.lstat()
        problem = "" if stat.S_ISREG(state.st_mode) else "it is a link, not a file"
        yield _File(name, path, (0, state.st_mtime), state.st_size, problem)


def _in_zip(archive: zipfile.ZipFile) -> Iterator[_File]:
    total = 0
    for member in archive.infolist():
        name = _composed(_decoded(member))
        if NOT_SENT.search(name) or member.is_dir():
            continue
        link = stat.S_ISLNK(member.external_attr >> 16)
        encrypted = bool(member.flag_bits & 1)
        problem = "it is a link, not a file" if link else "it is encrypted" if encrypted else ""
        total += member.file_size
        if total > LARGEST_ZIP:
            raise SubmissionError(f"The zip unpacks to more than {LARGEST_ZIP:,} bytes.")
        when = float("".join(f"{part:02d}" for part in member.date_time))
        yield _File(name, None, (0, when), member.file_size, problem, member=member)


def _composed(name: str) -> str:
    """Return the name with each letter as one sign: macOS takes Korean letters apart."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _decoded(member: zipfile.ZipInfo) -> str:
    """Return a name as it was meant: old zips say neither UTF-8 nor Korean Windows."""
    if member.flag_bits & 0x800:
        return member.filename
    for encoding in ("utf-8", "cp949"):
        try:
            return member.filename.encode("cp437").decode(encoding)
        except UnicodeError:
            continue
    return member.filename


def _choose(files: list[_File], lab: str, read: Callable[[_File], bytes]) -> list[Submission]:
    """Find the student of each file, and the latest file of each student."""
    if not files:
        raise SubmissionError("There is no file in it. Give the folder or the zip of submissions.")
    _name_students(files, lab)
    by_student: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        by_student[file.student].append(file)
    chosen = []
    for student, own in sorted(by_student.items()):
        # A notebook before anything else, then the latest.
        own.sort(key=lambda file: (file.name.lower().endswith(".ipynb"), file.order))
        *others, last = own
        notes = [f"other file, not graded: {other.name}" for other in others]
        problem, content = _problem(last), b""
        if not problem:
            try:
                content = read(last)
            except Exception as error:  # a damaged file fails in many ways, and stops nobody else
                problem = f"it can't be read: {error!r}"
        chosen.append(Submission(student, last.name, content, problem, tuple(notes)))
    return chosen


def _problem(file: _File) -> str:
    if file.problem:
        return file.problem
    if not file.name.lower().endswith(".ipynb"):
        return "it is not a notebook (.ipynb)"
    if file.size > LARGEST_FILE:
        return f"it has {file.size:,} bytes; at most {LARGEST_FILE:,} are graded"
    return "" if file.size else "the file is empty"


def _name_students(files: list[_File], lab: str) -> None:
    """Set each file's student, and put its version's number first in its order."""
    common = _common_folders([file.name for file in files])
    paths = [PurePosixPath(*PurePosixPath(file.name).parts[common:]) for file in files]
    there = {path.with_suffix("") for path in paths}
    folders: dict[tuple[str, ...], set[str]] = defaultdict(set)
    read = []
    for file, path in zip(files, paths, strict=True):
        canvas = CANVAS.fullmatch(path.name)
        stem = PurePosixPath(canvas["file"]).stem if canvas else path.stem
        base, version = _version(stem)
        # student-1 and student-2 are two students, unless there is a student: nobody may get lost.
        if canvas or base == lab or path.with_name(base) in there:
            stem = base
            file.order = (version, file.order[1])
        # Canvas and Moodle name the student; nothing else in the path counts then.
        moodle = next((found for part in path.parts if (found := MOODLE.fullmatch(part))), None)
        if known := canvas or moodle:
            file.student = f"{known['name']}_{known['id']}"
        home = tuple(part for part in path.parts[:-1] if part != lab)
        rest = stem.replace(lab, "").strip("-_ .")
        if path.suffix.lower() == ".ipynb":
            folders[home].add(rest)
        read.append((home, rest))
    for file, path, (home, rest) in zip(files, paths, read, strict=True):
        if not file.student:
            # A folder of several names is a group of students, not one.
            alone = bool(home) and len(folders[home]) < 2
            names = home if alone or not rest else (*home, rest)
            file.student = "/".join(names) or path.stem


def _common_folders(names: list[str]) -> int:
    """Return how many folders around all files say nothing: `submissions/`, say."""
    parents = [PurePosixPath(name).parts[:-1] for name in names]
    count = 0
    while len(names) > 1 and len({parent[: count + 1] for parent in parents}) == 1:
        if len(parents[0]) <= count or MOODLE.fullmatch(parents[0][count]):
            break
        count += 1
    return count


def _version(stem: str) -> tuple[str, int]:
    number = 0
    while found := VERSION.search(stem):
        if found.start() == 0:
            break
        number = max(number, int(found["n"] or found["m"] or found["v"] or 0))
        stem = stem[: found.start()]
    return stem, number
