"""The gate before a champion, and where one lies: decided by paired intervals, replaced whole or not at all."""

import json
import shutil

import pytest
from safetensors.numpy import load_file, save_file

from cliprd import cli, files
from cliprd.artifact import manifest
from cliprd.errors import InputError, ParamsError
from cliprd.kubeflow import promotion
from cliprd.params import validate
from cliprd.promotion import champion, folder_store, gate
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
    assert made.facts["reason"].endswith("significantly worse")


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
    files.write_json(target / "results.json", results)
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


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Two methods with three seeds each."""
    return folders.write_grid(tmp_path_factory.mktemp("seeds"), METHODS, [0, 1, 2], only=TASKS)


def gated(place, output, *benchmarks, **promote):
    names = ["candidate", *(f"candidate-{number}" for number in range(1, len(benchmarks)))]
    gate.run(params(place, **promote), dict(zip(names, benchmarks, strict=True)), output)
    return folders.read(output / gate.DECISION)


def failed(decision):
    return [(guard["kind"], guard["name"]) for guard in decision["guards"] if guard["ok"] is False]


def test_every_guard_is_told_and_the_decision_can_be_read(grid, place, tmp_path):
    publish(grid, place, "baseline")
    decision = gated(place, tmp_path / "out", grid["benchmarks"] / "clip_kd-0")
    assert (decision["verdict"], decision["covers"]) == ("better", "examples")
    assert [(guard["kind"], guard["name"], guard["ok"]) for guard in decision["guards"]] == [
        ("tasks", "captions", True),
        ("tasks", "photos", True),
        ("fidelity", "cross_rank", True),
        ("latency", "image", None),  # of one architecture
        ("latency", "text", None),
        ("size", "parameters", True),
        ("size", "image_macs", True),
        ("size", "text_macs", True),
    ]
    photos = next(guard for guard in decision["guards"] if guard["name"] == "photos")
    assert {key: photos[key] for key in ("value", "low", "high")} == decision["tasks"]["photos"]
    text = (tmp_path / "out" / gate.TEXT).read_text()
    assert text.startswith("**Promote**: +")
    assert "| tasks: photos | +" in text
    assert "One seed a side" in text


def test_a_gain_is_not_promoted_where_a_guarded_figure_is_too_much_worse(grid, place, tmp_path):
    publish(grid, place, "baseline")
    good = grid["benchmarks"] / "clip_kd-0"

    def larger(results):
        results["cost"]["parameters"] = int(results["cost"]["parameters"] * 1.05)

    def smaller(results):
        results["cost"]["parameters"] -= 1

    def slower(folder, times):
        timed = folders.read(folder / "volatile" / "speed.json")
        timed["text"]["latency_ms"]["median"] *= times
        files.write_json(folder / "volatile" / "speed.json", timed)

    large = changed(good, tmp_path / "large", larger)
    decision = gated(place, tmp_path / "1", large)
    assert (decision["passed"], decision["verdict"]) == (False, "worse elsewhere")
    assert failed(decision) == [("size", "parameters")]
    assert "size parameters" in decision["reason"]
    assert gated(place, tmp_path / "2", large, margins={"size": 0.1})["passed"] is True
    assert gated(place, tmp_path / "3", large, margins={"size": "none"})["passed"] is True
    slow = changed(good, tmp_path / "slow", smaller)
    slower(slow, 2.5)
    assert failed(gated(place, tmp_path / "4", slow)) == [("latency", "text")]
    slower(slow, 1 / 1.5)  # a timing is no part of the manifest, yet it decides
    assert gated(place, tmp_path / "4", slow)["passed"] is True
    alike = tmp_path / "alike"
    shutil.copytree(good, alike)
    slower(alike, 5)  # of one architecture with the champion: the machine was busy
    assert gated(place, tmp_path / "alike-out", alike)["passed"] is True
    # The mean gains, a task loses: one is far better, the other no better than its margin allows.
    assert failed(gated(place, tmp_path / "5", good, margins={"tasks": 0, "fidelity": 0})) == []
    publish(grid, place, "clip_kd")
    worse = gated(place, tmp_path / "6", grid["benchmarks"] / "baseline-0")
    assert ("fidelity", "cross_rank") in failed(worse)
    assert {("tasks", "captions"), ("tasks", "photos")} & set(failed(worse))


def test_what_cannot_be_told_refuses_nothing_but_what_is_missing_does(grid, place, tmp_path):
    publish(grid, place, "baseline")
    good = grid["benchmarks"] / "clip_kd-0"

    def told(folder, output, kind):
        decision = gated(place, tmp_path / output, folder)
        return decision["passed"], [g["note"] for g in decision["guards"] if g["kind"] == kind and g["ok"] is not True]

    untimed = tmp_path / "untimed"
    shutil.copytree(good, untimed)
    (untimed / "volatile" / "speed.json").unlink()
    assert told(untimed, "1", "latency") == (True, ["the candidate was not timed"] * 2)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(good, elsewhere)
    timed = folders.read(elsewhere / "volatile" / "speed.json")
    files.write_json(elsewhere / "volatile" / "speed.json", {**timed, "threads": 64})
    assert told(elsewhere, "2", "latency") == (True, ["they were timed on different machines"] * 2)

    damaged = tmp_path / "damaged"
    shutil.copytree(good, damaged)
    (damaged / "volatile" / "speed.json").write_text('{"text": {"latency_ms": {"median": 1e-300}}}')
    assert told(damaged, "damaged-out", "latency") == (True, ["the timings of the candidate are damaged"] * 2)

    def without_reference(results):
        for task in results["tasks"]:
            path = tmp_path / "alone" / "outcomes" / f"{task}.safetensors"
            tensors = load_file(path)
            save_file({name: value for name, value in tensors.items() if not name.startswith("fidelity.")}, path)

    alone = changed(good, tmp_path / "alone", without_reference)
    passed, notes = told(alone, "3", "fidelity")
    assert passed is False
    assert "was not compared with the teacher on captions, photos" in notes[0]


def test_further_tasks_of_the_candidate_are_said_and_not_compared(grid, place, tmp_path):
    def fewer(results):
        del results["tasks"]["captions"]

    old = changed(grid["benchmarks"] / "baseline-0", tmp_path / "old", fewer)
    decision = {"champion": None, "passed": True}
    champion.publish(place, params(place), grid["students"] / "baseline-0", [old], decision, ASKED)
    decision = gated(place, tmp_path / "out", grid["benchmarks"] / "clip_kd-0")
    assert decision["passed"] is True
    assert set(decision["tasks"]) == {"photos"}
    assert any("captions" in note for note in decision["notes"])


def test_protocols(grid, place, tmp_path):
    """The candidate lacks it: that is wrong input. The champion lacks it: they cannot be compared."""

    def standard_only(results):
        for task in results["tasks"].values():
            del task["protocols"]["paper"]

    old = changed(grid["benchmarks"] / "baseline-0", tmp_path / "old", standard_only)
    champion.publish(
        place, params(place), grid["students"] / "baseline-0", [old], {"champion": None, "passed": True}, ASKED
    )
    tree = validate({"promote": {"champion": place}, "compare": {"protocol": "paper"}}, where="test")
    made = gate.run(tree, {"candidate": grid["benchmarks"] / "clip_kd-0"}, tmp_path / "out")
    assert made.facts["verdict"] == "not comparable"
    assert "by protocol 'paper'" in made.facts["reason"]
    with pytest.raises(InputError, match=r"not scored by protocol 'paper' \(compare.protocol\)"):
        gate.run(tree, {"candidate": old}, tmp_path / "other")


def test_a_champion_gets_new_scores_and_then_can_be_compared_again(grid, place, tmp_path):
    def new_data(results):
        results["tasks"]["photos"]["fingerprint"] = "1" * 64

    first = publish(grid, place, "baseline")
    again = changed(grid["benchmarks"] / "baseline-0", tmp_path / "again", new_data)
    better = changed(grid["benchmarks"] / "clip_kd-0", tmp_path / "better", new_data)
    assert gated(place, tmp_path / "1", better)["verdict"] == "not comparable"
    decision = gated(place, tmp_path / "2", again)
    assert (decision["passed"], decision["verdict"]) == (True, "rescored")
    second = champion.publish(place, params(place), grid["students"] / "baseline-0", [again], decision, ASKED)
    assert second != first
    assert gated(place, tmp_path / "3", better)["verdict"] == "better"


def test_a_student_that_was_rolled_back_does_not_come_back_by_itself(grid, place, tmp_path):
    first = publish(grid, place, "baseline")
    second = publish(grid, place, "clip_kd")
    assert champion.rollback(place, params(place), ASKED) == first
    decision = gated(place, tmp_path / "out", grid["benchmarks"] / "clip_kd-0")
    assert (decision["passed"], decision["verdict"]) == (False, "withdrawn")
    assert champion.rollback(place, params(place), ASKED, to=second) == second
    assert gated(place, tmp_path / "out", grid["benchmarks"] / "clip_kd-0")["verdict"] == "champion"


def test_the_scores_of_a_champion_that_came_back_can_be_renewed(grid, place, tmp_path):
    """Rolled back are other scores of the same student: that student is the champion, and not withdrawn."""

    def new_data(results):
        results["tasks"]["photos"]["fingerprint"] = "1" * 64

    publish(grid, place, "baseline")
    again = changed(grid["benchmarks"] / "baseline-0", tmp_path / "again", new_data)
    decision = gated(place, tmp_path / "1", again)
    champion.publish(place, params(place), grid["students"] / "baseline-0", [again], decision, ASKED)
    champion.rollback(place, params(place), ASKED)
    assert gated(place, tmp_path / "2", again)["verdict"] == "rescored"


def test_a_repeated_training_is_known_by_its_lineage(grid, place, tmp_path):
    """On GPUs a repetition gives other bytes."""
    tree = {
        "params": {"distill": {"seed": 0}},
        "inputs": {"shards": {"fingerprint": "a"}},
        "code_parts": {"losses": "b"},
    }

    def candidate(name, **lineage):
        folder, sealed = tmp_path / name, manifest.read(grid["benchmarks"] / "clip_kd-0")
        shutil.copytree(grid["benchmarks"] / "clip_kd-0", folder)
        files.write_json(folder / "lineage.json", {**tree, **lineage})
        model = sealed.inputs["model"] if name == "first" else files.digest(name)
        manifest.write(folder, stage="benchmark", params=sealed.params, inputs={"model": model})
        return folder

    publish(grid, place, "baseline")
    decision = gated(place, tmp_path / "1", first := candidate("first"))
    champion.publish(place, params(place), grid["students"] / "clip_kd-0", [first], decision, ASKED)
    champion.rollback(place, params(place), ASKED)
    assert gated(place, tmp_path / "2", candidate("again"))["verdict"] == "withdrawn"
    mended = candidate("mended", code_parts={"losses": "c"})
    assert gated(place, tmp_path / "3", mended)["verdict"] == "better"


def test_seeds_are_compared_as_recipes(seeds, place, tmp_path):
    publish(seeds, place, "baseline", seeds=(0, 1, 2))
    kd = tmp_path / "kd"
    kd.mkdir()
    for seed in range(3):
        (kd / f"{seed}").symlink_to(seeds["benchmarks"] / f"clip_kd-{seed}")
    decision = gated(place, tmp_path / "folder", kd)  # a folder of folders, or one by one
    assert (decision["passed"], decision["covers"]) == (True, "examples and seeds")
    assert decision["seeds"] == {"candidate": 3, "champion": 3}
    single = gated(place, tmp_path / "several", *(seeds["benchmarks"] / f"clip_kd-{seed}" for seed in (2, 0, 1)))
    assert single == decision
    one = gated(place, tmp_path / "one", seeds["benchmarks"] / "clip_kd-0")
    assert one["seeds"] == {"candidate": 1, "champion": 3}
    with pytest.raises(InputError, match="not of one recipe"):
        gated(place, tmp_path / "x", seeds["benchmarks"] / "clip_kd-0", without(seeds, tmp_path / "less"))
    with pytest.raises(InputError, match="of one student twice"):
        gated(place, tmp_path / "x", *[seeds["benchmarks"] / "clip_kd-0"] * 2)


@pytest.mark.parametrize("unsaid", [{}, {"standard": True}, {"paper": False}])
def test_a_teacher_that_guesses_refuses_also_a_better_student(seeds, place, tmp_path, unsaid):
    """By the protocol that is asked for, whichever of the seeds was held against it, and not without an override."""
    publish(seeds, place, "baseline", seeds=(0, 1, 2))

    def taught(by):
        return lambda results: results.update(reference={"id": "t", "weights_sha256": "0", "above_guessing": by})

    better = [seeds["benchmarks"] / f"clip_kd-{seed}" for seed in range(3)]
    known = changed(better[1], tmp_path / "known", taught(unsaid))
    assert gated(place, tmp_path / "unknown", better[0], known, better[2])["verdict"] == "better"
    weak = changed(better[1], tmp_path / "weak", taught({"standard": False, "paper": True}))
    decision = gated(place, tmp_path / "refused", better[0], weak, better[2])
    assert (decision["passed"], decision["verdict"]) == (False, "not above guessing")
    assert decision["reason"] == "nothing to distil: the candidate's teacher is not above guessing"
    assert decision["standing"]["above_guessing"] is True
    allowed = gated(place, tmp_path / "allowed", better[0], weak, better[2], allow_guessing=True)
    assert (allowed["verdict"], allowed["overrides"]) == ("better", ["promote.allow_guessing"])


def without(seeds, target):
    def fewer(results):
        del results["tasks"]["captions"]

    return changed(seeds["benchmarks"] / "clip_kd-1", target, fewer)


def test_a_teacher_is_no_candidate(grid, place, tmp_path):
    with pytest.raises(InputError, match="benchmark of a teacher"):
        gated(place, tmp_path / "out", grid["benchmarks"] / "teacher")
    with pytest.raises(InputError, match="never finished"):
        gated(place, tmp_path / "out", tmp_path)


def test_the_command_promotes_refuses_and_rolls_back(grid, place, tmp_path, capsys):
    def cliprd(*words):
        return cli.main([*words, "--params", str(file), "--set", f"promote.champion={place}"]), capsys.readouterr().out

    def promote(method, *words):
        folders_of = [f"--{kind}={grid[name] / f'{method}-0'}" for kind, name in FLAGS.items()]
        return cliprd("promote", *folders_of, "--output", str(tmp_path / f"out-{method}"), *words)

    file = tmp_path / "params.yaml"
    file.write_text("")
    code, out = promote("baseline", "--dry-run")
    assert (code, "would be promoted: there is no champion yet" in out) == (0, True)
    assert champion.current(place, params(place)) is None
    assert promote("baseline", "--reason", "the first")[0] == 0
    assert promote("baseline")[0] == 0  # it is the champion
    code, out = promote("clip_kd")
    assert (code, "is the champion" in out) == (0, True)
    code, out = promote("baseline")
    assert (code, "not promoted" in out) == (1, True)
    pointer = folders.read(tmp_path / "champion" / folder_store.POINTER)
    assert pointer["before"][0]["asked_by"]["what"] == "the first"
    code, out = cliprd("rollback")
    assert (code, pointer["before"][0]["version"] in out) == (0, True)
    assert cliprd("rollback")[0] == 3


FLAGS = {"student": "students", "benchmark": "benchmarks"}


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
    (tmp_path / "champion" / folder_store.POINTER).write_text("{")
    with pytest.raises(InputError, match=r"champion.json is damaged"):
        champion.current(place, params(place))


def test_what_the_gate_refused_is_not_promoted(grid, place, tmp_path, capsys):
    publish(grid, place, "clip_kd")
    decide(grid, place, "baseline", tmp_path / "decision")
    held = (tmp_path / "champion" / folder_store.POINTER).read_bytes()
    folder = [str(grid[kind] / "baseline-0") for kind in ("students", "benchmarks")]
    with pytest.raises(SystemExit) as end:
        promotion.promote({"promote": {"champion": place}}, *folder, str(tmp_path / "decision"), run_name="retrain-1")
    assert end.value.code == 3
    assert "The gate refused" in capsys.readouterr().err
    assert (tmp_path / "champion" / folder_store.POINTER).read_bytes() == held


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
        found = promotion.record(sections, str(tmp_path / "text"), run_name=run_name, state=state, error=error)
        note = json.loads((tmp_path / "champion" / "runs" / run_name / "ending.json").read_text())
        assert (note["ending"], note["kubeflow"]) == (found, state)
        assert f"- ending: {found}\n" in (tmp_path / "text").read_text()
        return found

    def gated(run_name: str, method: str) -> str:
        promotion.gate(sections, str(grid["benchmarks"] / f"{method}-0"), str(tmp_path / run_name), run_name=run_name)
        return str(tmp_path / run_name)

    assert ending("early", "FAILED", "a\nb") == "failed"
    assert "- error: `a\\nb`\n" in (tmp_path / "text").read_text()
    decision = gated("first", "clip_kd")
    assert ending("first") == "failed"  # the gate let it pass, and then came nothing
    folders_of = [str(grid[kind] / "clip_kd-0") for kind in ("students", "benchmarks")]
    promotion.promote(sections, *folders_of, decision, run_name="first")
    assert ending("first") == "promoted"
    decision = gated("second", "baseline")
    assert ending("second") == "not promoted"
    assert "significantly worse" in (tmp_path / "text").read_text()
    held = (tmp_path / "champion" / folder_store.POINTER).read_bytes()
    folders_of = [str(grid[kind] / "baseline-0") for kind in ("students", "benchmarks")]
    version = promotion.refuse(sections, *folders_of, decision, run_name="second")
    kept = json.loads((tmp_path / "champion" / version / "decision.json").read_text())
    assert "significantly worse" in kept["decision"]["reason"]
    assert kept["asked_by"]["what"] == "Kubeflow run second"
    assert (tmp_path / "champion" / folder_store.POINTER).read_bytes() == held
    folders_of = [str(grid[kind] / "clip_kd-0") for kind in ("students", "benchmarks")]
    assert promotion.refuse(sections, *folders_of, gated("third", "clip_kd"), run_name="third") is None  # it is there


def test_seeds_of_one_recipe_are_not_joined_by_students_of_another(grid, place, tmp_path):
    """Two trainings of one method that differ in more than the seed; one seed twice."""

    def trained(name, seed, epochs):
        folder = changed(
            grid["benchmarks"] / "clip_kd-0", tmp_path / name, lambda results: results["model"].update(seed=seed)
        )
        tree = {
            "params": {"distill": {"seed": seed, "epochs": epochs}},
            "inputs": {"shards": {"fingerprint": "a"}, "cache": {"fingerprint": "b"}},
            "code_parts": {"losses": "c", "benchmark": str(seed)},
        }
        files.write_json(folder / "lineage.json", tree)
        sealed = manifest.read(folder)
        inputs = {**sealed.inputs, "model": files.digest(name)}
        manifest.write(folder, stage=sealed.stage, params=sealed.params, inputs=inputs)
        return folder

    first, second, longer, again = (
        trained(name, *how) for name, how in {"a": (0, 1), "b": (1, 1), "c": (2, 9), "d": (0, 1)}.items()
    )
    assert gated(place, tmp_path / "1", first, second)["verdict"] == "first"
    with pytest.raises(InputError, match="not of one recipe"):
        gated(place, tmp_path / "2", first, longer)
    with pytest.raises(InputError, match="of one seed twice"):
        gated(place, tmp_path / "3", first, again)
