"""A student's lineage: written by the stages, read back to the raw shards, compared with what would be made now."""

import json
import shutil

import pytest
import yaml

from cliprd import cli, files, lineage, params
from cliprd.artifact import identity, manifest
from cliprd.errors import InputError
from cliprd.lineage import inputs
from cliprd.retrain.wanted import lineage_now
from cliprd.stages import benchmark, cache, distill, prepare
from tests.benchmark.tools import classification
from tests.data.pictures import pairs, write_tar
from tests.distill.rooms import STUDENT
from tests.teacher_cache.rooms import write_teacher


def tree(root, **sections):
    found = {
        "data": {"path": str(root / "raw"), "samples_per_shard": 4},
        "student": {"config": STUDENT},
        "distill": {"method": "baseline", "epochs": 1, "batch_size": 6, "warmup_steps": 0, "device": "cpu"},
        "benchmark": {"tasks": str(root / "tasks"), "protocols": ["standard"], "bootstrap": 40, "speed": False},
        "tracking": {"uri": ""},
        "teacher": {"name": "open_clip:ViT-B-32:openai"},  # no plug-in, as the folder's teacher is none
    }
    return params.validate(
        {key: {**found.get(key, {}), **sections.get(key, {})} for key in {*found, *sections}}, where="test"
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Two raw shards, and all that the real stages make of them."""
    root = tmp_path_factory.mktemp("house")
    write_tar(root / "raw/a.tar", pairs(6))
    write_tar(root / "raw/b.tar", pairs(3, start=50))
    classification(root / "tasks")
    wanted = tree(root)
    prepare.run(wanted, {}, root / "shards")
    write_teacher(root / "teacher")
    cache.run(wanted, {"shards": root / "shards", "teacher": root / "teacher"}, root / "cache")
    distill.run(wanted, {"shards": root / "shards", "cache": root / "cache"}, root / "student")
    benchmark.run(wanted, {"model": root / "student"}, root / "benchmark")
    return root


def test_the_lineage_reaches_the_raw_shards(house):
    found = lineage.of(house / "student")
    shards, made = found["inputs"]["shards"], found["inputs"]["cache"]
    assert [(part["name"], part["samples"]) for part in shards["sources"]] == [("a.tar", 6), ("b.tar", 3)]
    assert shards["sources"][0]["fingerprint"] == files.sha256_file(house / "raw/a.tar")
    assert shards["fingerprint"] == manifest.read(house / "shards").fingerprint
    assert made["fingerprint"] == manifest.read(house / "cache").fingerprint
    assert made["inputs"]["teacher"]["fingerprint"] == manifest.read(house / "teacher").fingerprint
    assert found["code"] == manifest.read(house / "student").code == identity.digest("cliprd.stages.distill")
    assert (shards["code"], made["code"]) == tuple(manifest.read(house / name).code for name in ("shards", "cache"))
    assert found["params"] == manifest.read(house / "student").params
    assert "scores" not in found


def test_a_benchmark_adds_its_scores(house):
    found = lineage.of(house / "benchmark")
    assert found.pop("scores") == json.loads((house / "benchmark/scores.json").read_text())
    results = json.loads((house / "benchmark/results.json").read_text())
    assert found.pop("tasks") == {"flags": results["tasks"]["flags"]["fingerprint"]}
    assert found == lineage.of(house / "student")


def test_the_code_is_beside_it_and_older_lineages_hold_it(house, tmp_path):
    """What an edit of code alone changes is in no file that a manifest covers."""
    found = lineage.of(house / "student")
    versions = [found["code"], *found["code_parts"].values(), *(entry["code"] for entry in found["inputs"].values())]
    for folder in ("student", "benchmark"):
        for name in manifest.read(house / folder).files:
            assert not any(version.encode() in (house / folder / name).read_bytes() for version in versions), name
    older = tmp_path / "older"
    files.write_json(older / "lineage.json", found)
    assert lineage.of(older) == found


def test_equal_work_gives_equal_bytes(house, tmp_path):
    distill.run(tree(house), {"shards": house / "shards", "cache": house / "cache"}, tmp_path / "again")
    assert (tmp_path / "again/lineage.json").read_bytes() == (house / "student/lineage.json").read_bytes()


def test_describe_prints_from_scores_to_raw_shards(house, capsys):
    assert cli.main(["lineage", str(house / "benchmark")]) == 0
    text = capsys.readouterr().out
    accuracy = json.loads((house / "benchmark/scores.json").read_text())["flags"]["standard"]["acc1"]
    for part in ("student baseline-0", f"flags, standard: acc1 {accuracy:.4f}", "a.tar", "b.tar", ": 3 samples"):
        assert part in text
    assert text.index("flags") < text.index("cache ") < text.index("a.tar") < text.index("b.tar")
    assert cli.main(["lineage", "--json", str(house / "student")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == lineage.of(house / "student")
    assert shown["params"] == json.loads((house / "student/lineage.json").read_text())["params"]


@pytest.mark.parametrize("inside", ["", "artifacts", "artifacts/model"])
def test_the_lineage_of_a_package_is_found(house, tmp_path, inside):
    for name in ("student", "benchmark"):
        shutil.copytree(house / name, tmp_path / inside / name)
    if inside == "artifacts/model":
        with pytest.raises(InputError, match="holds no student"):
            lineage.of(tmp_path)
    else:
        assert lineage.of(tmp_path) == lineage.of(house / "benchmark")
        shutil.rmtree(tmp_path / inside / "benchmark")
        assert lineage.of(tmp_path) == lineage.of(house / "student")


@pytest.mark.parametrize(("stage", "fact"), [("shards", "sources"), ("cache", "made_with")])
def test_inputs_without_lineage_are_refused_before_the_training(house, tmp_path, stage, fact):
    inputs = {name: shutil.copytree(house / name, tmp_path / name) for name in ("shards", "cache")}
    found = manifest.read(inputs[stage])
    facts = {name: value for name, value in found.facts.items() if name != fact}
    manifest.write(inputs[stage], stage=found.stage, params=found.params, inputs=found.inputs, facts=facts)
    with pytest.raises(
        InputError, match=f"{stage} was written by a version of cliprd that recorded no lineage.*cliprd {found.stage}"
    ):
        distill.run(tree(house), inputs, tmp_path / "student")
    assert not (tmp_path / "student/history.csv").exists()


def told(capsys, folder, *words):
    assert cli.main(["lineage", str(folder)]) == InputError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    for word in (str(folder), *words):
        assert word in line


def test_a_folder_without_lineage_is_a_one_line_error(house, tmp_path, capsys):
    told(capsys, tmp_path / "nowhere", "has no lineage.json")
    told(capsys, house / "shards", "stage 'prepare'")
    copy = shutil.copytree(house / "student", tmp_path / "copy")
    (copy / "lineage.json").write_text((copy / "lineage.json").read_text().replace("a.tar", "c.tar"))
    told(capsys, copy, "damaged", "manifest")
    (copy / "lineage.json").unlink()
    told(capsys, copy, "lineage.json is missing", "manifest")
    (copy / "lineage.json").mkdir()
    told(capsys, copy, "lineage.json is missing, or is no file")
    (copy / "lineage.json").rmdir()
    manifest.write(copy, stage="distill", params={}, inputs={})
    told(capsys, copy, "recorded no lineage", "Train it again")
    made = manifest.read(house / "benchmark")
    benchmark.run(tree(house), {"model": copy}, tmp_path / "scores")  # an older student can still be benchmarked
    assert set(made.files) - set(manifest.read(tmp_path / "scores").files) == {"lineage.json"}
    told(capsys, tmp_path / "scores", "without a lineage")
    (tmp_path / "foreign").mkdir()
    for text in ("{", "[]", "{}", '{"schema": 2, "stage": "distill", "inputs": {"shards": 1, "cache": 1}}'):
        (tmp_path / "foreign/lineage.json").write_text(text)
        told(capsys, tmp_path / "foreign", "schema" if "2" in text else "is no lineage")


def changes(house, wanted):
    """The teacher of these tests is a student's folder, which no parameter names."""
    found = lineage.changes(lineage.of(house / "benchmark"), wanted)
    assert {change.what for change in found if change.kind == "teacher"} >= {"name"}
    return [change for change in found if change.kind != "teacher"]


def test_unchanged_inputs_give_no_changes(house, tmp_path):
    assert changes(house, lineage_now(tree(house))) == []
    moved = shutil.copytree(house, tmp_path / "moved")
    assert changes(house, lineage_now(tree(moved))) == []  # where the data lie is no difference


def test_every_change_is_named(house, tmp_path):
    moved = shutil.copytree(house, tmp_path / "moved")
    write_tar(moved / "raw/0.tar", pairs(2, start=80))
    (moved / "raw/a.tar").unlink()
    write_tar(moved / "raw/b.tar", pairs(4, start=50))
    (moved / "tasks/flags/classnames.txt").write_text("".join(f"{c}\n" for c in "abcdef"))
    wanted = lineage_now(tree(moved, distill={"epochs": 2}, cache={"views": 2}, student={"mean": [0.5, 0.5, 0.5]}))
    wanted["code_parts"]["losses"] = "0" * 64
    found = changes(house, wanted)
    assert [(change.kind, change.what) for change in found] == [
        ("data", "0.tar"),
        ("data", "a.tar"),
        ("data", "b.tar"),
        ("params", "cache.views"),
        ("params", "distill.epochs"),
        ("params", "student.mean"),
        ("code", "losses"),
        ("tasks", "flags"),
    ]
    assert [str(change) for change in found[:2]] == ["data: 0.tar is new", "data: a.tar is gone"]
    assert str(found[4]) == "params: distill.epochs changed from 1 to 2"


def test_teachers_are_compared_by_name_weights_and_settings(house):
    aligned = lineage_now(tree(house, teacher={"name": "aligned"}))
    other = lineage_now(tree(house, teacher={"name": "aligned", "aligned": {"epochs": 3}}))
    (change,) = lineage.changes(aligned, other)
    assert (change.kind, change.what, change.before, change.after) == ("teacher", "aligned.epochs", 24, 3)
    weights = house / "weights.safetensors"
    weights.write_bytes(b"1")
    one = lineage_now(tree(house, teacher={"name": f"open_clip:ViT-T-16:{weights}", "aligned": {"epochs": 3}}))
    weights.write_bytes(b"2")
    two = lineage_now(tree(house, teacher={"name": f"open_clip:ViT-T-16:{weights}"}))
    assert [(change.kind, change.what) for change in lineage.changes(one, two)] == [("teacher", "weights")]


def test_code_parts_match_dvc_yaml():
    """DVC and `cliprd retrain` see the same changes: each stage depends on the code that it can reach."""
    from tests.integration.pipeline import ROOT

    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(stages) == {*inputs.STAGES, "benchmark-teacher", "inputs"}
    for stage, entry in stages.items():
        named = [dep for dep in entry.get("deps", ()) if dep.startswith(("src/", "work/inputs/code"))]
        assert named == ([] if stage == "inputs" else [f"work/inputs/code/{stage.removesuffix('-teacher')}.json"])
    assert set(lineage.PARTS.values()) - {"cliprd.losses"} < {f"cliprd.stages.{stage}" for stage in inputs.STAGES}
