"""Where finished runs are kept: in a file each, named by a hash of all that made it."""

import contextlib
import dis
import functools
import hashlib
import os
import pickle
import tempfile
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

import trainwell
from trainwell.datasets import fingerprint
from trainwell.datasets.places import cache_folder
from trainwell.runtime import device, profile, versions


class _UnknownError(Exception):
    """An object of which nothing tells whether it is the same as last time."""


def folder() -> Path:
    """Return the folder of finished runs: `TRAINWELL_RUNS`, else one in the user's cache."""
    chosen = os.environ.get("TRAINWELL_RUNS")
    return Path(chosen).expanduser() if chosen else cache_folder() / "runs"


def places_of(function: Callable[..., Any], points: Iterable[dict[str, Any]]) -> list[Path | None]:
    """Return the file of each run, whether it is there or not; None for one that can't be kept."""
    environment = _environment()
    whole = function
    while isinstance(whole, functools.partial):
        whole = whole.func
    home = whole.__module__
    places: list[Path | None] = []
    for point in points:
        try:
            parts = [*environment, *_describe([function, point], home, {})]
        except _UnknownError:
            places.append(None)
        else:
            name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
            places.append(folder() / f"{name}.pickle")
    return places


def load(place: Path | None) -> pd.DataFrame | None:
    """Return a finished run, or None if there is none, or none that can be read."""
    if place is None or not place.exists():
        return None
    try:
        table = pd.read_pickle(place)
    except Exception:  # pickle raises what it likes: cut short, or of another version of pandas
        return None
    return table if isinstance(table, pd.DataFrame) else None


def save(table: pd.DataFrame, place: Path) -> None:
    """Keep a finished run. A folder that can't be written is no reason to stop."""
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                table.to_pickle(file)
            Path(temporary).replace(place)
        finally:
            Path(temporary).unlink(missing_ok=True)  # where the disk is full, say


def _environment() -> list[str]:
    """Describe what decides a run's numbers beside its function and arguments."""
    package = Path(trainwell.__file__).parent
    code = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] != "labs":  # no run calls the labs' builder and grader
            code.update(name.as_posix().encode() + path.read_bytes())
    return [profile(), device(), str(versions()), fingerprint(), code.hexdigest()]


def _describe(value: Any, home: str, seen: dict[int, int]) -> Iterable[str]:
    """Describe a value so that another value, or other code, has another description.

    A function is its code and what it refers to, if it is from the module `home`, that of the
    page or script; whatever comes from an installed package is its name, for the versions count.
    """
    kind = type(value).__name__
    if isinstance(value, types.FunctionType | type) and value.__module__ != home:
        yield f"{value.__module__}.{value.__qualname__}"
    elif isinstance(value, functools.partial):
        yield from _describe([value.func, value.args, value.keywords], home, seen)
    elif isinstance(value, types.MethodType):
        yield from _describe([value.__func__, value.__self__], home, seen)
    elif isinstance(value, types.ModuleType | types.BuiltinFunctionType):
        yield f"{kind} {value.__name__}"
    elif isinstance(value, types.FunctionType | types.CodeType | type):
        if id(value) in seen:  # it calls itself, or is referred to twice: say which one it is
            yield f"again {seen[id(value)]}"
            return
        seen[id(value)] = len(seen)
        yield f"{kind} {value.__name__ if not isinstance(value, types.CodeType) else ''}"
        yield from _describe(_parts(value), home, seen)
    elif isinstance(value, dict):
        yield f"dict of {len(value)}"
        for name, part in value.items():
            yield from _describe(name, home, seen)
            yield from _describe(part, home, seen)
    elif isinstance(value, set | frozenset):
        yield f"{kind} {sorted(map(repr, value))}"
    elif isinstance(value, list | tuple):
        yield f"{kind} of {len(value)}"
        for part in value:
            yield from _describe(part, home, seen)
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes | range):
        yield f"{kind} {value!r}"
    else:
        yield f"{kind} {_pickled(value, home)}"


def _parts(value: Any) -> Any:
    """Return what makes a function, its code, or a class."""
    if isinstance(value, types.CodeType):
        # Runs are called by keyword: which argument has which name counts.
        return [value.co_code, value.co_names, value.co_varnames, value.co_consts]
    if isinstance(value, type):
        own = {
            n: p for n, p in vars(value).items() if not isinstance(p, types.GetSetDescriptorType)
        }
        return [value.__bases__, own]
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    used = {n: value.__globals__[n] for n in _names(value.__code__) if n in value.__globals__}
    return [value.__code__, value.__defaults__, value.__kwdefaults__, cells, used]


def _names(code: types.CodeType) -> list[str]:
    """Return the global names that code uses, and the functions defined in it."""
    loads = (dis.opmap["LOAD_GLOBAL"], dis.opmap["LOAD_NAME"])
    # `co_names` has the names of attributes too.
    names = {i.argval for i in dis.get_instructions(code) if i.opcode in loads}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_names(constant))
    return sorted(names)


def _pickled(value: Any, home: str) -> str:
    """Return a hash of a pickled array, table or object of an installed package."""
    try:
        pickled = pickle.dumps(value)
    except Exception as error:
        raise _UnknownError from error
    if home.encode() in pickled:  # a pickle has the name of a class, not its code
        raise _UnknownError
    return hashlib.sha256(pickled).hexdigest()
