"""The names of `import cliprd`: frozen, documented, and loaded when they are used."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import cliprd
from cliprd import params
from cliprd.errors import InputError, ParamsError
from cliprd.losses import DistillationLoss
from tests.benchmark.tools import classification
from tests.distill import rooms

GOLDEN = Path(__file__).parents[1] / "golden/library.txt"
NAMES = {
    "DistillationLoss", "LossWeights", "method_weights", "open_shards", "open_teacher_cache", "CachedPairs",
    "load_teacher", "load_student", "distill", "evaluate", "register_term", "register_teacher", "__version__",
}  # fmt: skip


def face():
    lines = []
    for name in sorted(cliprd.__all__):
        value = getattr(cliprd, name)
        lines.append(f"{name}{'' if isinstance(value, str) else inspect.signature(value)}")
    return "\n".join(lines) + "\n"


def test_names_and_signatures_are_frozen():
    """A deliberate change: python -c "from tests.library.test_face import face; print(face(), end='')" > the golden."""
    assert face() == GOLDEN.read_text(encoding="utf-8")


def test_all_are_there_and_documented():
    assert set(cliprd.__all__) == set(dir(cliprd)) == NAMES
    for name in NAMES - {"__version__"}:
        assert len(inspect.getdoc(getattr(cliprd, name))) > 40, name
    with pytest.raises(AttributeError, match="has no attribute 'destill'"):
        _ = cliprd.destill


def test_importing_loads_nothing():
    code = "import sys, cliprd\nprint(*[m for m in sys.modules if m.startswith('cliprd.') or m in ('torch', 'numpy')])"
    assert not subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("first", ["cliprd.distill", "cliprd.distill.train", "cliprd.stages.distill"])
def test_distill_is_callable_whatever_was_imported_first(first):
    code = f"import {first}, cliprd, inspect\nprint(list(inspect.signature(cliprd.distill).parameters))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['params', 'shards', 'cache', 'output']"


def test_the_weights_of_a_method_carry_its_scale_mode():
    assert cliprd.method_weights("clip_rd-exp").scale_mode == "exp"
    assert cliprd.method_weights("clip_rd").scale_mode is None
    assert DistillationLoss(4, 4, weights=cliprd.method_weights("clip_rd-exp")).scale_mode == "exp"
    assert DistillationLoss(4, 4, weights=cliprd.method_weights("clip_rd-raw")).scale_mode == "raw"
    assert DistillationLoss(4, 4, weights=cliprd.method_weights("clip_rd")).scale_mode == "raw"
    with pytest.raises(ValueError, match="of a method with 'exp'"):
        DistillationLoss(4, 4, weights=cliprd.method_weights("clip_rd-exp"), scale_mode="raw")
    for wrong in ("clip_rd-", "clip_rd-log", "clip"):
        with pytest.raises(ValueError, match="is no method"):
            cliprd.method_weights(wrong)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    folder = tmp_path_factory.mktemp("house")
    rooms.build(folder)
    classification(folder / "tasks")
    return folder


def test_functions_do_what_the_stages_do(house, tmp_path):
    """`distill` and `evaluate` over folders give the stages' own bytes and numbers."""
    from cliprd.stages import benchmark, distill

    tree = rooms.make_params(house, epochs=1)
    shards = cliprd.open_shards(str(house / "shards"))
    cache = cliprd.open_teacher_cache(house / "cache", house / "shards")
    assert cache.augmentation == tree.augmentation
    made = cliprd.distill(tree.model_dump(mode="json"), shards, str(house / "cache"), str(tmp_path / "student"))
    inputs = {"shards": house / "shards", "cache": house / "cache"}
    assert made == distill.run(tree, inputs, tmp_path / "stage")

    student = cliprd.load_student(str(tmp_path / "student"))
    scores = cliprd.evaluate(student, house / "tasks", protocol="standard")
    assert scores == cliprd.evaluate(tmp_path / "student", str(house / "tasks"))
    section = {"tasks": str(house / "tasks"), "protocols": ["standard"], "speed": False}
    whole = params.validate({"benchmark": section, "tracking": {"uri": ""}}, where="test")
    benchmark.run(whole, {"model": tmp_path / "student"}, tmp_path / "benchmark")
    told = json.loads((tmp_path / "benchmark/results.json").read_text())["tasks"]
    assert scores == {name: entry["protocols"]["standard"]["scores"] for name, entry in told.items()}


def test_a_cache_of_other_shards_is_refused(house, tmp_path):
    from cliprd.stages import prepare

    tree = rooms.make_params(house)
    other = tree.model_copy(update={"data": tree.data.model_copy(update={"samples_per_shard": 7})})
    prepare.run(other, {}, tmp_path / "shards")
    with pytest.raises(InputError, match="other shards"):
        cliprd.open_teacher_cache(house / "cache", tmp_path / "shards")


def test_teachers_by_name(house):
    assert cliprd.load_teacher(house / "teacher").dim == 24  # a student's folder is a model too
    with pytest.raises(ParamsError, match="is trained on pairs"):
        cliprd.load_teacher("aligned")
    with pytest.raises(ParamsError, match=r"No teacher is called 'alined'; registered: aligned"):
        cliprd.load_teacher("alined")
    with pytest.raises(ParamsError, match="No architecture is called 'ViT-Z'"):
        cliprd.load_teacher("open_clip:ViT-Z:openai")
