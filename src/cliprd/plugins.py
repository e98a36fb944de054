"""What users add without a fork: loss terms and teachers, registered by a script or by an installed package.

A package names them in its entry points, `cliprd.terms` and `cliprd.teachers`; nothing of it is imported before it is
used. A script registers them itself, for the process that runs it alone: processes that start afresh (torchrun's ranks)
know entry points only.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

from cliprd.errors import ParamsError
from cliprd.names import shortened

NAME = re.compile(r"[a-z][a-z0-9_]*")


class PluginRegistry:
    """The plug-ins of one kind, by name; what this process has registered comes before entry points.

    Args:
        group: of the entry points.
        kind: for messages.
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group, self.kind = group, kind
        self._registered: dict[str, tuple[Any, str]] = {}

    def register(self, name: str, value: Any, module: str) -> None:
        """Know `value`, whose code is in `module`, as `name`; an earlier one of that name is replaced."""
        self._registered[name] = (value, module)

    def names(self) -> list[str]:
        """All that are known, in alphabetical order."""
        return sorted({*self._registered, *(entry.name for entry in importlib.metadata.entry_points(group=self.group))})

    def __contains__(self, name: str) -> bool:
        return name in self._registered or self._entry(name) is not None

    def get(self, name: str) -> Any:
        """The plug-in, imported where it comes from a package.

        Raises:
            ParamsError: there is none of that name (the message lists those that are), two packages have one, or it
                cannot be imported.
        """
        if name in self._registered:
            return self._registered[name][0]
        if (entry := self._entry(name)) is None:
            raise self.unknown(name)
        try:
            return entry.load()
        except Exception as error:  # whatever a foreign module raises when it is imported
            raise ParamsError(
                f"The {self.kind} '{name}' ({entry.value}) cannot be imported: {type(error).__name__}: {error}.",
                "Mend or reinstall its package.",
            ) from error

    def unknown(self, name: str) -> ParamsError:
        """The refusal of a name."""
        known = ", ".join(self.names()) or "none"
        return ParamsError(
            f"No {self.kind} is called '{shortened(name)}'; registered: {known}.",
            f"Install a package with an entry point `{shortened(name)}` in the group {self.group}. What a script "
            "registers is known to its own process only, not to those that are launched (distill.processes).",
        )

    def code(self, name: str) -> tuple[str, ...]:
        """The module that holds the plug-in, for `artifact.identity`; () where there is none of that name."""
        if name in self._registered:
            return (self._registered[name][1],)
        entry = self._entry(name)
        return (entry.module,) if entry else ()

    def _entry(self, name: str) -> EntryPoint | None:
        """cliprd's own come first: to look through all packages takes ten times as long."""
        try:
            own = importlib.metadata.distribution("cliprd").entry_points.select(group=self.group, name=name)
        except importlib.metadata.PackageNotFoundError:
            own = ()  # type: ignore[assignment]
        entries = list(own or importlib.metadata.entry_points(group=self.group, name=name))
        if len({entry.value for entry in entries}) > 1:
            values = " and ".join(sorted(entry.value for entry in entries))
            raise ParamsError(f"The {self.kind} '{name}' is there twice: {values}.", "Uninstall one of the packages.")
        return entries[0] if entries else None


terms = PluginRegistry("cliprd.terms", "loss term")
teachers = PluginRegistry("cliprd.teachers", "teacher")


def check_name(name: object) -> None:
    """Refuse what cannot be a column, a parameter and a file name at once.

    Raises:
        ValueError: it is so.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a plug-in: lower-case letters, digits and _ are, a letter first")


def module_of(function: Callable[..., Any]) -> str:
    """The module whose source defines a function: what identifies its code.

    Raises:
        TypeError: not a plain function of a module, so that its source would not say all that it does.
        ValueError: it was typed into an interpreter or a notebook.
    """
    if not inspect.isfunction(function) or function.__closure__:
        raise TypeError(
            f"{function!r}: a plain function of a module is needed, which uses no other function's variables"
        )
    module = sys.modules.get(function.__module__)
    if not getattr(module, "__file__", None):
        raise ValueError(
            f"{function.__qualname__} has no source file, so a later edit of it could not be seen: write it into a "
            ".py file and import it"
        )
    spec = getattr(module, "__spec__", None)
    return function.__module__ if spec is None else str(spec.name)  # of `python -m`, not `__main__`
