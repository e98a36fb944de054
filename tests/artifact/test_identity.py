"""What counts as other code: a tree that a stage can reach, and nothing else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile

import pytest

from cliprd.artifact import identity
from cliprd.lineage import inputs
from cliprd.stages import distill
from tests.benchmark.tools import classification
from tests.distill import rooms
from tests.integration.pipeline import ROOT

SOURCE = ROOT / "src/cliprd"
LOOK = """
import json, sys
from cliprd.artifact import identity
print(json.dumps({stage: identity.closure(f"cliprd.stages.{stage}") for stage in sys.argv[1:]}))
"""


def closures(package):
    """Stage → closure, as a Python sees it that has `package` on its path."""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-c", LOOK, *inputs.STAGES]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(SOURCE, tmp_path / "elsewhere/cliprd", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "elsewhere"


def edit(copy, file, before, after):
    path = copy / "cliprd" / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


ADDED = "\nADDED = 1\n"


def alter(copy, file):
    path = copy / "cliprd" / file
    path.write_text(path.read_text() + (ADDED if path.suffix == ".py" else " "))


def test_a_copy_elsewhere_and_a_wheel_are_the_same_code(copy, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "wheel")
    here = {stage: dict(identity.closure(f"cliprd.stages.{stage}")) for stage in inputs.STAGES}
    assert closures(copy) == closures(tmp_path / "wheel") == here


def test_comments_docstrings_and_layout_never_count(copy):
    before = closures(copy)
    for path in (copy / "cliprd").rglob("*.py"):
        path.write_text(path.read_text() + "\n\n# a comment at the end\n")
    edit(copy, "data/keys.py", '"""', '"""Said otherwise. ')
    edit(copy, "losses/relational.py", "    return", "    # a reason\n\n    return")
    assert closures(copy) == before


def test_a_tree_counts_for_the_stages_that_reach_it(copy):
    def changed(file):
        alter(copy, file)
        now = closures(copy)
        others = {
            stage: {name for name in {*now[stage], *known[stage]} if now[stage].get(name) != known[stage].get(name)}
            for stage in inputs.STAGES
        }
        known.update(now)
        return {stage: names for stage, names in others.items() if names}

    known = closures(copy)
    assert changed("losses/relational.py") == {"distill": {"cliprd.losses.relational"}}
    assert changed("report/svg.py").keys() == {"benchmark", "compare"}
    assert changed("cli/main.py") == {}
    assert changed("tracking/follow.py") == {}
    assert changed("__init__.py") == {}
    assert changed("data/shards.py").keys() == {"prepare", "teacher", "cache", "distill"}
    assert "teacher" in changed("models/configs/ViT-T-16.json")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Pictures, shards, a teacher, its cache, a student and a task."""
    folder = tmp_path_factory.mktemp("room")
    rooms.build(folder)
    tree = rooms.make_params(folder, epochs=1, method="clip_rd-exp")
    distill.run(tree, {"shards": folder / "shards", "cache": folder / "cache"}, folder / "student")
    classification(folder / "tasks")
    return folder


@pytest.mark.parametrize("stage", ["prepare", "cache", "distill", "benchmark"])
def test_the_closure_holds_all_that_a_stage_loads(room, tmp_path, stage):
    """In a real run: what is imported by a name that is made at run time would be missing from the closure."""
    read = {
        "prepare": {},
        "cache": {"shards": room / "shards", "teacher": room / "teacher"},
        "distill": {"shards": room / "shards", "cache": room / "cache"},
        "benchmark": {"model": room / "student"},
    }[stage]
    tree = rooms.make_params(room, epochs=1, method="clip_rd-exp").model_dump(mode="json")
    tree["benchmark"] |= {"tasks": str(room / "tasks"), "bootstrap": 50}
    (tmp_path / "params.json").write_text(json.dumps(tree))
    (tmp_path / "inputs.json").write_text(json.dumps({name: str(path) for name, path in read.items()}))
    given = [tmp_path / "params.json", tmp_path / "inputs.json", tmp_path / "output"]
    command = [sys.executable, ROOT / "tests/loaded.py", stage, *given]
    ran = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    everything = set(json.loads(ran.stdout.splitlines()[-1]))
    loaded = {name for name in everything if not identity._is_watcher(name)}
    reached = set(identity.closure(f"cliprd.stages.{stage}"))
    # What the watchers bring in on their own account the stage never sees.
    watchers = {name for name in everything if identity._is_watcher(name) and name != "cliprd"}
    assert loaded - reached <= {name for watcher in watchers for name in identity.closure(watcher)}
    assert len(loaded & reached) > 20


def train(copy, room, output, moment):
    """`distill` with the code in `copy`, which kills itself at `moment`; the exit code and stderr."""
    environment = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{ROOT}"}
    command = [sys.executable, ROOT / "tests/distill/child.py", room, output, moment]
    ran = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    return ran.returncode, ran.stderr


def test_a_killed_training_outlives_comments_and_other_code_does_not_take_it_away(copy, room, tmp_path):
    """Checkpoints come every 5 steps of 15. Only a training that starts again meets its second step."""
    output = tmp_path / "student"
    assert train(copy, room, output, "record:12")[0] == -signal.SIGKILL
    shutil.copytree(output, tmp_path / "killed")

    for path in (copy / "cliprd").rglob("*.py"):
        path.write_text(path.read_text() + "\n# a comment\n")
    alter(copy, "report/svg.py")
    alter(copy, "cli/main.py")
    code, said = train(copy, room, output, "record:2")
    assert (code, "restarted" in said) == (0, False), said

    other = tmp_path / "killed"
    alter(copy, "losses/relational.py")
    code, said = train(copy, room, other, "record:4")
    assert code == -signal.SIGKILL
    (line,) = [line for line in said.splitlines() if "restarted" in line]
    assert "code of cliprd.losses.relational has changed" in line
    assert (other / ".aside/.checkpoint/step-00000010.json").is_file()

    again = shutil.copytree(other, tmp_path / "again")
    assert train(copy, room, again, "record:8")[0] == -signal.SIGKILL  # behind its own first checkpoint
    assert not (again / ".aside").exists()

    edit(copy, "losses/relational.py", ADDED, "")  # taken back
    code, said = train(copy, room, other, "record:2")
    assert (code, "restarted" in said) == (0, False), said
    assert not (other / ".aside").exists()
    assert (other / "manifest.json").read_bytes() == (output / "manifest.json").read_bytes()
