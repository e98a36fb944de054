"""Which code shapes an artifact: the modules that a stage can reach, each as its syntax tree without docstrings.

Comments, docstrings and formatting never count, nor do modules outside the import closure. A data file of a package (a
model config, a template) counts with the package. The digests are the same at every path, from a checkout as from a
wheel, and with every Python that parses the source to the same tree.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "cliprd"
ROOT = Path(__file__).parents[1]
DATA_SUFFIXES = frozenset({".json", ".j2"})
# These watch or describe the work and shape no byte of it; `cliprd` itself holds the version.
WATCHERS = ("cliprd.progress", "cliprd.signals")


def closure(module: str) -> Mapping[str, str]:
    """Module → digest (hex) of every module of the package that `module` can reach by imports, itself included.

    Imports inside functions count; imports for type checkers alone, and the modules in `WATCHERS`, do not. A module
    that is imported by a name made at run time is not seen: tests/artifact/test_identity.py compares the
    closure with what stages load.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    return dict(_closure(module))


@functools.cache
def digest(module: str) -> str:
    """One digest (hex) of `closure(module)`."""
    return hashlib.sha256("".join(f"{name} {sha}\n" for name, sha in _closure(module).items()).encode()).hexdigest()


def sources() -> str:
    """sha256 (hex) of all that the closures are made from, as bytes."""
    content = hashlib.sha256()
    for path in sorted(ROOT.rglob("*")):
        if path.suffix in {".py", *DATA_SUFFIXES}:
            content.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return content.hexdigest()


@functools.cache
def _closure(module: str) -> dict[str, str]:
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], imports = _module(name)
            waiting += imports
    return dict(sorted(found.items()))


@functools.cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module, and the modules of the package that importing and using it loads."""
    path = _path(name)
    if path is None:
        raise ModuleNotFoundError(f"{PACKAGE} has no module {name}", name=name)
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
    return content.hexdigest(), tuple(sorted(target for target in imports if not _is_watcher(target)))


def _is_watcher(name: str) -> bool:
    return name == PACKAGE or any(name == watcher or name.startswith(f"{watcher}.") for watcher in WATCHERS)


def _path(name: str) -> Path | None:
    """The file of a module of the package; None where it is none."""
    top, *parts = name.split(".")
    if top != PACKAGE:
        return None
    place = ROOT.joinpath(*parts)
    candidates = [place / "__init__.py", *([place.with_name(f"{place.name}.py")] if parts else [])]
    return next((path for path in candidates if path.is_file()), None)


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
    """The modules of the package that an import statement loads."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        base = package.rsplit(".", node.level - 1)[0] if node.level else ""
        source = ".".join(part for part in (base, node.module) if part)
        names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
    else:
        return
    yield from (found for found in names if _path(found))


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
