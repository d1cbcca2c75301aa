"""Functions and error classes as names, ``module:qualname``, so that an item holds no code.

A consumer finds names among the registered functions. It never imports a module because an item names it, except below the modules that
``imports`` allows.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, Callable, Optional


def name_of(thing: Any) -> str:
    """Returns ``module:qualname`` of a function or a class."""
    return f"{_module_name(thing.__module__)}:{thing.__qualname__}"


def _module_name(name: str) -> str:
    """Returns the name by which other programs import the module.

    A module that runs as a program is called ``__main__``, but a worker imports it under its own name. ``python -m pkg.mod`` knows that
    name; for ``python path/mod.py``, the name is assumed to be ``mod``.
    """
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return PurePath(file).stem if file else name


def check_function(function: Callable[..., Any]) -> None:
    """Raises TypeError for an object that cannot be deferred, and ValueError for a function that another program cannot find."""
    named = callable(function) and hasattr(function, "__qualname__") and hasattr(function, "__dict__")
    if not named or isinstance(function, type):
        raise TypeError(f"only functions can be deferred, not {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__} is a coroutine function: nobody would await it; defer a function that runs it")
    if "." in function.__qualname__ or function.__qualname__ == "<lambda>":
        raise ValueError(f"only functions at the top level of a module can be deferred, not {function.__qualname__}")


def class_names(classes: Optional[Iterable[type[BaseException]]]) -> list[str]:
    """Returns the names of error classes, sorted.

    Raises TypeError for an object that is not an error class.
    """
    names = set()
    for each in classes or ():
        if not isinstance(each, type) or not issubclass(each, BaseException):
            raise TypeError(f"error_classes are exception classes, not {each!r}")
        names.add(name_of(each))
    return sorted(names)


def is_among(error: BaseException, names: Iterable[str]) -> bool:
    """Whether an ``except`` clause with the classes of these names would catch the error."""
    return not {name_of(each) for each in type(error).__mro__}.isdisjoint(names)


def is_below(module: str, allowed: Iterable[str]) -> bool:
    """Whether the module is one of these, or inside one of these packages."""
    return any(module == each or module.startswith(f"{each}.") for each in allowed)
