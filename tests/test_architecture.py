"""Imports go only downwards, and the command line stays light."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "cliprd"
ROOT = SRC.parents[1]
# From the ground up; a package imports only from the layers below its own, modules of the ground also each other.
FLOORS = [
    {
        "document", "errors", "extras", "files", "formatting", "losses", "machine", "names", "parallel", "params",
        "plugins", "progress", "reading", "signals", "storage",
    },
    {"artifact", "statistics"},
    {"data", "models", "report"},
    {"benchmark", "demo_teacher", "teacher_cache"},
    {"distill"},
    {"lineage"},
    {"tracking"},
    {"promotion"},
    {"stages"},
    {"plan", "doctor", "library", "project"},
    {"kubeflow"},
    {"retrain"},
    {"cli"},
    {"__main__"},
]  # fmt: skip
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
NEIGHBOURS = {("data", "models")}  # what a model takes of an image (`models.image_spec`); models know nothing of data


def imports(path: Path) -> set[str]:
    """Rooms of cliprd that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            parts = node.module.split(".")
            if parts[0] == "cliprd":
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("cliprd.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: p.relative_to(SRC).as_posix())
def test_imports_go_downwards(path):
    room = path.relative_to(SRC).parts[0].removesuffix(".py")
    if room == "__init__":  # its names are loaded when they are used: tests/library/test_face.py
        return
    for target in imports(path):
        allowed = target == room or FLOOR[target] < FLOOR[room] or (room, target) in NEIGHBOURS
        ground = FLOOR[room] == 0 and FLOOR[target] == 0
        assert allowed or ground, f"{path} imports cliprd.{target}, which is not below {room}"


def test_a_look_at_inputs_loads_next_to_nothing():
    """It is in every `dvc repro` of an unchanged repository."""
    code = "import sys, cliprd.lineage.inputs\nprint(' '.join(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "open_clip", "numpy", "PIL", "boto3", "tqdm", "scipy", "pandas"} & set(modules)


def test_losses_know_torch_only():
    for path in (SRC / "losses").glob("*.py"):
        assert imports(path) <= {"losses"}


# Which packages of cliprd know of an orchestrator or tracker at all.
WHO_KNOWS = {"mlflow": {"tracking", "promotion"}, "dvc": set(), "kfp": {"kubeflow"}, "kfp_server_api": {"kubeflow"}}


def test_only_their_own_packages_know_of_mlflow_dvc_and_kfp():
    for path in SRC.rglob("*.py"):
        room = path.relative_to(SRC).parts[0].removesuffix(".py")
        known = {name for name, rooms in WHO_KNOWS.items() if room not in rooms}
        assert not known & outside(path), path


def test_stages_know_nothing_of_tracking():
    for name in ("distill", "benchmark", "stages"):
        for path in (SRC / name).rglob("*.py"):
            assert "tracking" not in imports(path), path


def test_the_package_never_imports_pipelines_or_components():
    for path in SRC.rglob("*.py"):
        assert not {"pipelines", "components", "tests"} & outside(path), path


def outside(path: Path) -> set[str]:
    """Top-level modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def test_no_modules_import_each_other_in_a_circle():
    """Lazy imports included, those for type checkers left out."""
    names = {_name(path): path for path in SRC.rglob("*.py")}
    graph = {name: _loads(path, names) - {name} for name, path in names.items()}
    while leaves := {name for name, targets in graph.items() if not targets}:
        graph = {name: targets - leaves for name, targets in graph.items() if name not in leaves}
    assert not graph, sorted(graph)


def _name(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _loads(path: Path, names) -> set[str]:
    found, waiting = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found |= {whole if whole in names else node.module} & names.keys()
    return found


MOST_LINES = 80


def test_functions_fit_a_screen():
    for folder in (SRC, ROOT / "components", ROOT / "pipelines"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert node.end_lineno - node.lineno < MOST_LINES, f"{path}:{node.lineno} {node.name}"


def test_no_class_has_the_name_of_another():
    found: dict[str, list[str]] = {}
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(_name(path))
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}


def test_help_imports_nothing_heavy():
    code = "import sys, cliprd.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\nprint(' '.join(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "numpy", "pydantic", "yaml", "mlflow", "kfp", "transformers", "open_clip", "PIL", "boto3"}
    assert not heavy & set(modules)


@pytest.mark.parametrize(
    "room", ["stages.prepare", "stages.compare", "promotion.promote", "tracking", "retrain.dvc", "lineage"]
)
def test_what_touches_no_tensors_loads_no_torch(room):
    """torch and open_clip cost seconds of each start."""
    code = f"import sys, cliprd.{room}\nprint(' '.join(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "open_clip", "mlflow", "transformers"} & set(modules)


def test_the_picture_of_the_layers_is_fresh():
    drawn = runpy.run_path(str(ROOT / "tools" / "architecture.py"))["draw"]()
    assert drawn == (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8"), "python tools/architecture.py"
