"""What watches, inside the box, that the checks' own tools are what they were.

A student's code and the checks share a process, so an answer can replace `np.allclose` or the
lab's helper functions. Before each check, whatever was replaced is put back and reported. This
stops an accident and a plain trick, not a determined one: nothing in the same process can.
"""

import builtins
import contextlib
import importlib
import inspect
import json
import sys
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

# By namespace and name: the namespace, the name in full, what it held, and the code of that.
_kept: dict[tuple[int, str], tuple[dict[str, Any], str, Any, Any]] = {}
_own_names: set[str] = set()
# IPython puts another one there for every cell.
_NOT_KEPT = {(id(vars(builtins)), "input")}


def start(modules: Iterable[str], namespace: dict[str, Any]) -> None:
    """Import the lab's modules before any student's code runs, and keep what is in them."""
    names = set(modules)
    if any(name.partition(".")[0] == "numpy" for name in names):
        names |= {"numpy", "numpy.testing", "numpy.linalg"}
    for name in sorted(names):
        with contextlib.suppress(Exception):  # the lab's own cell will tell
            importlib.import_module(name)
    _own_names.update(namespace)  # what IPython puts there, `open` say
    # IPython itself changes `sys`, and no check computes with the like of it.
    standard = sys.stdlib_module_names - {"random", "statistics"}
    tools = {name for name in names if name.partition(".")[0] not in standard}
    for name in {"builtins", "math"} | tools:
        module = sys.modules.get(name)
        if isinstance(module, ModuleType):
            _keep(vars(module), list(vars(module)), f"{name}.")


def remember(names: Iterable[str], namespace: dict[str, Any]) -> None:
    """Keep the functions, classes and modules that a cell of the lab has just defined."""
    _keep(namespace, [name for name in names if name in namespace], "")
    _own_names.update(names)


def restore(namespace: dict[str, Any]) -> None:
    """Put back what was replaced, and print a list of it."""
    changed = []
    for (place, name), (owner, label, value, code) in list(_kept.items()):
        new: Any = owner.get(name)
        if new is not value and _loaded_afresh(new, value, code):
            _kept[place, name] = (owner, label, new, new.__code__)
            continue
        if new is not value:
            owner[name] = value
            changed.append(label)
        if code is not None and _function(value).__code__ is not code:
            _function(value).__code__ = code
            changed.append(label)
    for name, value in namespace.items():
        builtin = callable(getattr(builtins, name, None)) and not name.startswith("_")
        # `from numpy import *` is clumsy, no trick.
        of_numpy = str(getattr(value, "__module__", "")).partition(".")[0] == "numpy"
        if builtin and name not in _own_names and not of_numpy:
            changed.append(f"{name} (the built-in's name)")
    print(json.dumps(sorted(set(changed))))


def _keep(owner: dict[str, Any], names: list[str], prefix: str) -> None:
    for name in names:
        value = owner[name]
        private = name.startswith("_" if not prefix.startswith("trainwell") else "__")
        if private or (id(owner), name) in _NOT_KEPT:
            continue
        if not (callable(value) or isinstance(value, ModuleType)):
            continue
        function = _function(value)
        code = function.__code__ if isinstance(function, FunctionType) else None
        _kept[id(owner), name] = (owner, prefix + name, value, code)


def _loaded_afresh(new: Any, value: Any, code: Any) -> bool:
    """Whether a function is the same as before, as when a check reloads its module."""
    return (
        type(new) is FunctionType
        and type(value) is FunctionType
        and new.__code__ == code
        and new.__globals__ is value.__globals__
        and new.__closure__ is None
        and new.__defaults__ == value.__defaults__
    )


def _function(value: Any) -> Any:
    return inspect.unwrap(value) if callable(value) else value
