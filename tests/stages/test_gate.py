"""The gate before a champion, and where one lies: decided by paired intervals, replaced whole or not at all."""

import json
import shutil

import pytest

from cliprd import component, manifest
from cliprd.errors import InputError, ParamsError
from cliprd.params import validate
from cliprd.stages import gate
from cliprd.tracking import champion, champion_folder
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
    tree = params(place, **promote)
    made = gate.run(tree, {"candidate": grid["benchmarks"] / f"{method}-0"}, output)
    return made, json.loads((output / gate.DECISION).read_text())


ASKED = {"who": "somebody", "what": "a test"}


def params(place, **promote):
    return validate({"promote": {"champion": place, **promote}}, where="test")


def publish(grid, place, method, seeds=(0,), **decision):
    """Held against whoever is champion now, unless the decision says otherwise."""
    held = champion.current(place, params(place))
    decision = {"champion": held.version if held else None, "passed": True, **decision}
    scores = [grid["benchmarks"] / f"{method}-{seed}" for seed in seeds]
    return champion.publish(place, params(place), grid["students"] / f"{method}-{seeds[0]}", scores, decision, ASKED)


def test_the_first_passes_and_the_champion_itself_does_not(grid, place, tmp_path):
    made, decision = decide(grid, place, "clip_kd", tmp_path / "first")
    assert made.facts == {"passed": True, "verdict": "first", "reason": "there is no champion yet"}
    assert decision["champion"] is None
    version = publish(grid, place, "clip_kd", **decision)
    made, decision = decide(grid, place, "clip_kd", tmp_path / "again")
    assert made.facts == {"passed": False, "verdict": "champion", "reason": "this is the champion"}
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
    assert made.facts["reason"].endswith("surely worse")


def test_the_difference_is_that_of_the_scores(grid, place, tmp_path):
    publish(grid, place, "baseline")
    _, decision = decide(grid, place, "clip_kd", tmp_path / "out")

    def score(method):
        task = folders.read(grid["benchmarks"] / f"{method}-0" / "results.json")["tasks"]["photos"]
        return task["protocols"]["standard"]["scores"]["acc1"]["value"]

    assert decision["tasks"]["photos"]["value"] == pytest.approx(score("clip_kd") - score("baseline"), abs=1e-6)


def changed(source, target, change):
    """A whole benchmark folder, whose results.json `change` has edited."""
    shutil.copytree(source, target)
    results, sealed = folders.read(target / "results.json"), manifest.read(target)
    change(results)
    manifest.write_json(target / "results.json", results)
    manifest.write(target, stage=sealed.stage, params=sealed.params, inputs=sealed.inputs)
    return target


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: r["tasks"]["photos"].update(fingerprint="0" * 64), "task 'photos' holds other data"),
        (lambda r: r["tasks"].pop("photos"), "not scored on task 'photos'"),
    ],
)
def test_a_candidate_of_other_tasks_is_refused_with_the_way_out(grid, place, tmp_path, change, why):
    publish(grid, place, "baseline")
    other = changed(grid["benchmarks"] / "clip_kd-0", tmp_path / "other", change)
    made = gate.run(params(place), {"candidate": other}, tmp_path / "out")
    assert (made.facts["passed"], made.facts["verdict"]) == (False, "not comparable")
    assert why in made.facts["reason"]
    assert "benchmark the champion's student" in made.facts["reason"]


def test_a_champion_is_replaced_last_and_damage_is_told(grid, place, tmp_path):
    first = publish(grid, place, "baseline")
    second = publish(grid, place, "clip_kd")
    assert first != second
    assert champion.current(place, params(place)).version == second
    for version in (first, second):
        manifest.verify(tmp_path / "champion" / version / "student", stage="distill")
    victim = tmp_path / "champion" / second / "benchmark" / "results.json"
    victim.write_text(victim.read_text().replace("0", "1", 1))
    with pytest.raises(InputError, match=r"results.json"):
        champion.current(place, params(place))
    (tmp_path / "champion" / champion_folder.POINTER).write_text("{")
    with pytest.raises(InputError, match=r"champion.json is damaged"):
        champion.current(place, params(place))


def test_what_the_gate_refused_is_not_promoted(grid, place, tmp_path, capsys):
    publish(grid, place, "clip_kd")
    decide(grid, place, "baseline", tmp_path / "decision")
    held = (tmp_path / "champion" / champion_folder.POINTER).read_bytes()
    folder = [str(grid[kind] / "baseline-0") for kind in ("students", "benchmarks")]
    with pytest.raises(SystemExit) as end:
        component.promote({"promote": {"champion": place}}, *folder, str(tmp_path / "decision"), run_name="retrain-1")
    assert end.value.code == 3
    assert "The gate refused" in capsys.readouterr().err
    assert (tmp_path / "champion" / champion_folder.POINTER).read_bytes() == held


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(grid, place):
    first = publish(grid, place, "baseline")
    with pytest.raises(InputError, match=f"{first} has become champion since"):
        publish(grid, place, "clip_kd", champion=None)
    assert champion.current(place, params(place)).version == first
    assert publish(grid, place, "baseline", champion=None) == first  # a repetition of the same promotion


def test_without_a_place_nothing_is_promoted(grid, tmp_path):
    made, _ = decide(grid, "", "clip_kd", tmp_path / "out")
    assert made.facts["passed"] is False
    assert "names no place" in made.facts["reason"]
    with pytest.raises(ParamsError, match="names no place"):
        champion.publish("", params(""), grid["students"] / "clip_kd-0", [grid["benchmarks"] / "clip_kd-0"], {}, ASKED)


def test_the_end_of_a_run_is_what_gate_and_promotion_have_left(grid, place, tmp_path):
    """Whatever Kubeflow says of it: its backend says RUNNING of runs whose last steps were cached or left out."""

    sections = {"promote": {"champion": place}}

    def ending(run_name: str, state: str = "RUNNING", error: str = "") -> str:
        found = component.record(sections, str(tmp_path / "text"), run_name=run_name, state=state, error=error)
        note = json.loads((tmp_path / "champion" / "runs" / run_name / "ending.json").read_text())
        assert (note["ending"], note["kubeflow"]) == (found, state)
        assert f"- ending: {found}\n" in (tmp_path / "text").read_text()
        return found

    def gated(run_name: str, method: str) -> str:
        component.gate(sections, str(grid["benchmarks"] / f"{method}-0"), str(tmp_path / run_name), run_name=run_name)
        return str(tmp_path / run_name)

    assert ending("early", "FAILED", "a\nb") == "failed"
    assert "- error: a b\n" in (tmp_path / "text").read_text()
    decision = gated("first", "clip_kd")
    assert ending("first") == "failed"  # the gate let it pass, and then came nothing
    folders_of = [str(grid[kind] / "clip_kd-0") for kind in ("students", "benchmarks")]
    component.promote(sections, *folders_of, decision, run_name="first")
    assert ending("first") == "promoted"
    gated("second", "baseline")
    assert ending("second") == "not promoted"
    assert "surely worse" in (tmp_path / "text").read_text()
