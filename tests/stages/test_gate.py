"""The gate before a champion, and where one lies: decided by paired intervals, replaced whole or not at all."""

import json
import shutil

import pytest

from cliprd import component, manifest
from cliprd.errors import InputError, ParamsError
from cliprd.params import validate
from cliprd.stages import gate
from cliprd.tracking import champion
from tests.report import folders

METHODS = ["baseline", "clip_kd"]
TASKS = [task for task in folders.tasks() if task.name in ("photos", "captions")]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return folders.write_grid(tmp_path_factory.mktemp("grid"), METHODS, [0], only=TASKS)


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "champion")


def decide(grid, place, method, output, **promote):
    tree = validate({"promote": {"champion": place, **promote}}, where="test")
    made = gate.run(tree, {"candidate": grid["benchmarks"] / f"{method}-0"}, output)
    return made, json.loads((output / gate.DECISION).read_text())


def publish(grid, place, method, **decision):
    """Held against whoever is champion now, unless the decision says otherwise."""
    name, held = f"{method}-0", champion.current(place)
    decision = {"champion": held.version if held else None, **decision}
    return champion.publish(place, grid["students"] / name, grid["benchmarks"] / name, decision)


def test_the_first_passes_and_the_champion_itself_does_not(grid, place, tmp_path):
    made, decision = decide(grid, place, "clip_kd", tmp_path / "first")
    assert made.facts == {"passed": True, "reason": "there is no champion yet"}
    assert decision["champion"] is None
    version = publish(grid, place, "clip_kd", **decision)
    made, decision = decide(grid, place, "clip_kd", tmp_path / "again")
    assert made.facts == {"passed": False, "reason": "this is the champion"}
    assert decision["champion"] == version


def test_a_better_one_passes_and_a_worse_one_does_not(grid, place, tmp_path):
    publish(grid, place, "baseline")
    made, decision = decide(grid, place, "clip_kd", tmp_path / "better")
    assert made.facts["passed"] is True
    assert decision["mean"]["low"] > 0
    assert set(decision["tasks"]) == {"photos", "captions"}
    publish(grid, place, "clip_kd")
    made, decision = decide(grid, place, "baseline", tmp_path / "worse")
    assert made.facts["passed"] is False
    assert decision["mean"]["high"] < 0
    assert made.facts["reason"].endswith("not surely better")


def test_the_difference_is_that_of_the_scores(grid, place, tmp_path):
    publish(grid, place, "baseline")
    _, decision = decide(grid, place, "clip_kd", tmp_path / "out")

    def score(method):
        task = folders.read(grid["benchmarks"] / f"{method}-0" / "results.json")["tasks"]["photos"]
        return task["protocols"]["standard"]["scores"]["acc1"]["value"]

    assert decision["tasks"]["photos"]["value"] == pytest.approx(score("clip_kd") - score("baseline"), abs=1e-6)


def test_other_data_are_refused(grid, place, tmp_path):
    publish(grid, place, "baseline")
    other = tmp_path / "other"
    shutil.copytree(grid["benchmarks"] / "clip_kd-0", other)
    results = folders.read(other / "results.json")
    results["tasks"]["photos"]["fingerprint"] = "0" * 64
    sealed = manifest.read(other)
    manifest.write_json(other / "results.json", results)
    manifest.write(other, stage=sealed.stage, params=sealed.params, inputs=sealed.inputs)
    tree = validate({"promote": {"champion": place}}, where="test")
    with pytest.raises(InputError, match=r"Task 'photos' is not the same"):
        gate.run(tree, {"candidate": other}, tmp_path / "out")


def test_a_champion_is_replaced_last_and_damage_is_told(grid, place, tmp_path):
    first = publish(grid, place, "baseline")
    second = publish(grid, place, "clip_kd")
    assert first != second
    assert champion.current(place).version == second
    for version in (first, second):
        manifest.verify(tmp_path / "champion" / version / "student", stage="distill")
    victim = tmp_path / "champion" / second / "benchmark" / "results.json"
    victim.write_text(victim.read_text().replace("0", "1", 1))
    with pytest.raises(InputError, match=r"results.json"):
        champion.current(place)
    (tmp_path / "champion" / champion.POINTER).write_text("{")
    with pytest.raises(InputError, match=r"champion.json is damaged"):
        champion.current(place)


def test_what_the_gate_refused_is_not_promoted(grid, place, tmp_path, capsys):
    publish(grid, place, "clip_kd")
    decide(grid, place, "baseline", tmp_path / "decision")
    held = (tmp_path / "champion" / champion.POINTER).read_bytes()
    folder = [str(grid[kind] / "baseline-0") for kind in ("students", "benchmarks")]
    with pytest.raises(SystemExit) as end:
        component.promote(place, *folder, str(tmp_path / "decision"), run_name="retrain-1")
    assert end.value.code == 3
    assert "The gate refused" in capsys.readouterr().err
    assert (tmp_path / "champion" / champion.POINTER).read_bytes() == held


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(grid, place):
    first = publish(grid, place, "baseline")
    with pytest.raises(InputError, match=f"{first} has become champion since"):
        publish(grid, place, "clip_kd", champion=None)
    assert champion.current(place).version == first
    assert publish(grid, place, "baseline", champion=None) == first  # a repetition of the same promotion


def test_without_a_place_nothing_is_promoted(grid, tmp_path):
    made, _ = decide(grid, "", "clip_kd", tmp_path / "out")
    assert made.facts["passed"] is False
    assert "names no place" in made.facts["reason"]
    with pytest.raises(ParamsError, match="names no place"):
        champion.publish("", grid["students"] / "clip_kd-0", grid["benchmarks"] / "clip_kd-0", {"champion": None})


def test_the_end_of_a_run_is_what_gate_and_promotion_have_left(grid, place, tmp_path):
    """Whatever Kubeflow says of it: its backend says RUNNING of runs whose last steps were cached or left out."""

    def ending(run_name: str, state: str = "RUNNING", error: str = "") -> str:
        found = component.record(place, str(tmp_path / "text"), run_name=run_name, state=state, error=error)
        note = json.loads((tmp_path / "champion" / "runs" / run_name / "ending.json").read_text())
        assert (note["ending"], note["kubeflow"]) == (found, state)
        assert f"- ending: {found}\n" in (tmp_path / "text").read_text()
        return found

    def gated(run_name: str, method: str) -> str:
        sections = {"promote": {"champion": place}}
        component.gate(sections, str(grid["benchmarks"] / f"{method}-0"), str(tmp_path / run_name), run_name=run_name)
        return str(tmp_path / run_name)

    assert ending("early", "FAILED", "a\nb") == "failed"
    assert "- error: a b\n" in (tmp_path / "text").read_text()
    decision = gated("first", "clip_kd")
    assert ending("first") == "failed"  # the gate let it pass, and then came nothing
    folders_of = [str(grid[kind] / "clip_kd-0") for kind in ("students", "benchmarks")]
    component.promote(place, *folders_of, decision, run_name="first")
    assert ending("first") == "promoted"
    gated("second", "baseline")
    assert ending("second") == "not promoted"
    assert "not surely better" in (tmp_path / "text").read_text()
