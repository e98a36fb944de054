"""Which code shapes an artifact: the modules that a stage can reach, each as its syntax tree without docstrings.

Comments, docstrings and formatting never count, nor do modules outside the import closure. A data file of a package (a
model config, a template) counts with the package. The digests are the same at every path, from a checkout as from a
wheel, and with every Python that parses the source to the same tree.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGE = "cliprd"
ROOT = Path(__file__).parents[1]
DATA_SUFFIXES = frozenset({".json", ".j2"})
# These watch or describe the work and shape no byte of it; `cliprd` itself holds the version.
WATCHERS = ("cliprd.progress", "cliprd.signals")


def closure(*modules: str) -> Mapping[str, str]:
    """Module → digest (hex) of every module that `modules` can reach by imports, themselves included.

    Followed are imports within cliprd and, from a module outside it (a plug-in), within its own package; from one that
    is not installed (a script) also those of its neighbours in the same folder. Imports inside functions count; imports
    for type checkers alone, and the modules in `WATCHERS`, do not. A module that is imported by a name made at run time
    is not seen: tests/artifact/test_identity.py compares the closure with what stages load. Plug-ins are such modules:
    who uses one names it (`plugins.PluginRegistry.code`).

    Raises:
        ModuleNotFoundError: there is no such module, or neither its source nor its distribution's version is known.
    """
    return dict(sorted(entry for module in modules for entry in _closure(module).items()))


@functools.cache
def digest(*modules: str) -> str:
    """One digest (hex) of `closure(*modules)`."""
    return hashlib.sha256("".join(f"{name} {sha}\n" for name, sha in closure(*modules).items()).encode()).hexdigest()


def sources() -> str:
    """sha256 (hex) of all that the closures are made from, as bytes."""
    content = hashlib.sha256()
    for path in sorted(ROOT.rglob("*")):
        if path.suffix in {".py", *DATA_SUFFIXES}:
            content.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return content.hexdigest()


class _Origin(NamedTuple):
    """Where the modules of a closure lie that are not cliprd's.

    Attributes:
        folder: of the top-level module. only: the one top-level module that counts; empty: all in the folder.
    """

    folder: Path
    only: str


@functools.cache
def _closure(module: str) -> dict[str, str]:
    top = module.partition(".")[0]
    origin = _Origin(ROOT.parent, PACKAGE) if top == PACKAGE else _origin(top)
    if origin is None or _path(module, origin) is None:
        return {module: _version(top)}
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], imports = _module(name, origin)
            waiting += imports
    return dict(sorted(found.items()))


def _origin(top: str) -> _Origin | None:
    """Of a top-level module outside cliprd; None where it has no source."""
    if top == "__main__":
        file = getattr(sys.modules[top], "__file__", None)
        return _Origin(Path(file).resolve().parent, "") if file else None
    spec = importlib.util.find_spec(top)
    if spec is None or not (file := next(iter(spec.submodule_search_locations or ()), None) or spec.origin):
        return None
    folder = Path(file).resolve().parent
    installed = any(folder.glob("*.dist-info")) or any(folder.glob("*.egg-info"))
    return _Origin(folder, top if installed else "")


def _version(top: str) -> str:
    """The digest of a distribution's name and version, for modules without source."""
    from importlib.metadata import packages_distributions, version

    for name in packages_distributions().get(top, ()):
        return hashlib.sha256(f"{name}=={version(name)}".encode()).hexdigest()
    raise ModuleNotFoundError(f"no module {top} whose source or version is known", name=top)


@functools.cache
def _module(name: str, origin: _Origin) -> tuple[str, tuple[str, ...]]:
    """Digest of a module, and the modules of `origin` and cliprd that importing and using it loads."""
    path = _path(name, origin)
    if path is None:
        raise ModuleNotFoundError(f"there is no module {name}", name=name)
    tree = ast.parse(path.read_bytes())
    content = hashlib.sha256()
    for part in _plain(tree):
        content.update(part.encode("utf-8", "backslashreplace"))
    if path.name == "__init__.py":
        for file in sorted(path.parent.rglob("*")):
            if file.suffix in DATA_SUFFIXES:
                content.update(f"\0{file.relative_to(path.parent).as_posix()}\0".encode() + file.read_bytes())
    imports = {target for node in _executed(tree) for target in _targets(node, name, path)}
    imports |= {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}  # the packages it lies in
    reached = (target for target in imports if _path(target, origin) and not _is_watcher(target))
    return content.hexdigest(), tuple(sorted(reached))


def _is_watcher(name: str) -> bool:
    return name == PACKAGE or any(name == watcher or name.startswith(f"{watcher}.") for watcher in WATCHERS)


def _path(name: str, origin: _Origin) -> Path | None:
    """The file of a module of `origin` or cliprd; None where it is none."""
    top, *parts = name.split(".")
    if name == "__main__":
        return Path(sys.modules[name].__file__ or "").resolve()
    if top != PACKAGE and origin.only not in ("", top):
        return None
    path = (ROOT.parent if top == PACKAGE else origin.folder).joinpath(top, *parts)
    return next((file for file in (path / "__init__.py", path.with_name(f"{path.name}.py")) if file.is_file()), None)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING:`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _targets(node: ast.AST, name: str, path: Path) -> Iterator[str]:
    """The modules that an import statement may load."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        base = package.rsplit(".", node.level - 1)[0] if node.level else ""
        source = ".".join(part for part in (base, node.module) if part)
        names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
    else:
        return
    yield from names


def _plain(node: object) -> Iterator[str]:
    """A syntax tree as text, without positions, docstrings and empty fields (of which each Python has others)."""
    if isinstance(node, list):
        yield "["
        for item in node:
            if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)):  # a docstring, or `...`
                yield from _plain(item)
        yield "]"
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for field, value in ast.iter_fields(node):
            if value is not None and value != []:
                yield f"{field}="
                yield from _plain(value)
        yield ")"
    else:
        yield f"{type(node).__name__}:{node!r},"
