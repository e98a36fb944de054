"""Imports go only downwards, and the command line stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "cliprd"
FLOORS = [
    {
        "errors",
        "document",
        "files",
        "formatting",
        "identity",
        "names",
        "reading",
        "signals",
        "image_spec",
        "machine",
        "manifest",
        "workspace",
        "progress",
        "params",
        "storage",
    },
    {"statistics"},
    {"losses", "report"},
    {"data", "models"},
    {"teacher_cache", "benchmark"},
    {"distill"},
    {"inputs"},
    {"lineage"},
    {"tracking"},
    {"stages"},
    {"retrain", "trainjob"},
    {"cli", "component", "doctor", "plan"},
    {"__main__"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
# Within a floor a room stands alone, but these may look at a neighbour: `models` needs to know nothing of `data`.
NEIGHBOURS = {("cli", "doctor"), ("cli", "plan"), ("component", "plan")}


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
    if room == "__init__":
        assert not imports(path)
        return
    for target in imports(path):
        allowed = target == room or FLOOR[target] < FLOOR[room] or (room, target) in NEIGHBOURS
        ground = FLOOR[room] == 0 and FLOOR[target] == 0
        assert allowed or ground, f"{path} imports cliprd.{target}, which is not below {room}"


def test_a_look_at_inputs_loads_next_to_nothing():
    """It is in every `dvc repro` of an unchanged repository."""
    code = "import sys, cliprd.inputs\nprint(' '.join(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "open_clip", "numpy", "PIL", "boto3", "tqdm", "scipy", "pandas"} & set(modules)


def test_losses_know_torch_only():
    for path in (SRC / "losses").glob("*.py"):
        assert imports(path) <= {"losses"}


def test_nobody_below_tracking_knows_of_mlflow_dvc_or_kfp():
    for path in SRC.rglob("*.py"):
        room = path.relative_to(SRC).parts[0].removesuffix(".py")
        if room in {"tracking", "doctor"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            assert not [n for n in names if n.split(".")[0] in {"mlflow", "dvc", "kfp"}], path


def test_help_imports_nothing_heavy():
    code = "import sys, cliprd.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\nprint(' '.join(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "numpy", "pydantic", "yaml", "mlflow", "kfp", "transformers", "open_clip", "PIL", "boto3"}
    assert not heavy & set(modules)


@pytest.mark.parametrize(
    "room", ["stages.prepare", "stages.compare", "stages.promote", "tracking", "retrain.dvc", "lineage"]
)
def test_what_touches_no_tensors_loads_no_torch(room):
    """torch and open_clip cost seconds of each start."""
    code = f"import sys, cliprd.{room}\nprint(' '.join(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "open_clip", "mlflow", "transformers"} & set(modules)
