"""The benchmark stage whole, on a random student and small tasks: results, fidelity, resuming, refusals."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from cliprd import files, params
from cliprd.artifact import manifest
from cliprd.benchmark import embed as embed_module
from cliprd.errors import InputError, ParamsError
from cliprd.stages import benchmark
from tests.benchmark.tools import STUDENT, classification, retrieval, student

SCORES = {
    "flags": {"acc1", "acc5", "mean_per_class_recall"},
    "captions": {f"{way}_r{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)},
}
FIDELITY = {
    f"{tower}_{metric}" for tower in ("image", "text") for metric in ("cosine", "rank", "cka", "cka_debiased")
} | {"cross_rank"}


def settings(root, **changes):
    section = {"tasks": str(root), "batch_size": 8, "bootstrap": 100, "fidelity_samples": 12, **changes}
    return params.validate({"benchmark": section, "student": STUDENT.model_dump(mode="json")}, where="test")


def distilled(folder, *, seed):
    """A folder as `distill` leaves it."""
    student(folder, seed=seed)
    described = {"distill": {"method": "clip_kd", "seed": seed}, "student": STUDENT.model_dump(mode="json")}
    manifest.write(folder, stage="distill", params=described, inputs={})
    return folder


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Tasks, a "teacher" (another student's folder), a student, and both benchmarked."""
    root = tmp_path_factory.mktemp("house")
    classification(root / "tasks")
    retrieval(root / "tasks")
    teacher, pupil = distilled(root / "teacher", seed=1), distilled(root / "pupil", seed=2)
    tree = settings(root / "tasks")
    benchmark.run(tree, {"model": teacher}, root / "benchmark" / "teacher")
    benchmark.run(tree, {"model": pupil, "reference": root / "benchmark" / "teacher"}, root / "benchmark" / "pupil")
    return root


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_every_score_is_named_and_has_its_interval(house):
    results = read(house / "benchmark" / "pupil", "results.json")
    assert set(results["tasks"]) == set(SCORES)
    for task, entry in results["tasks"].items():
        assert set(entry["protocols"]) == {"standard", "paper"}
        for protocol, part in entry["protocols"].items():
            assert set(part["scores"]) == SCORES[task]
            for score in part["scores"].values():
                assert set(score) == {"value", "low", "high", "n", "confidence", "protocol", "precision"}
                assert score["low"] <= score["value"] <= score["high"]
                assert (score["protocol"], score["precision"], score["confidence"]) == (protocol, "fp32", 0.95)
                assert score["n"] == entry["images"]
        assert set(entry["fidelity"]["scores"]) == FIDELITY
        assert entry["fidelity"]["undefined"] == {}
        assert entry["fidelity"]["samples"] == 12
    flags, captions = results["tasks"]["flags"], results["tasks"]["captions"]
    assert (flags["kind"], flags["images"], len(flags["classnames"]), flags["captions"]) == (
        "classification", 24, 6, None,
    )  # fmt: skip
    assert (captions["kind"], captions["images"], captions["captions"]) == ("retrieval", 14, 21)
    assert flags["protocols"]["standard"]["templates"] == ["a photo of a {c}.", "the {c}"]
    assert len(flags["protocols"]["paper"]["templates"]) == 80
    assert captions["protocols"]["paper"]["captions"] == "first"


def test_the_model_and_its_cost_are_described(house):
    results = read(house / "benchmark" / "pupil", "results.json")
    teacher = read(house / "benchmark" / "teacher", "results.json")
    assert results["model"]["method"] == "clip_kd"
    assert results["model"]["seed"] == 2
    assert results["model"]["weights_sha256"] == files.sha256_file(house / "pupil" / "open_clip_model.safetensors")
    assert results["reference"]["id"] == teacher["model"]["id"]
    assert results["reference"]["fingerprint"] == manifest.read(house / "benchmark" / "teacher").fingerprint
    assert teacher["reference"] is None
    assert teacher["tasks"]["flags"]["fidelity"] is None
    assert results["cost"]["parameters"] > results["cost"]["text_parameters"] > 0
    assert set(read(house / "benchmark" / "pupil", "volatile/speed.json")) >= {"image", "text", "device"}


def test_random_models_are_said_to_be_not_above_guessing(house):
    for model in ("teacher", "pupil"):
        results = read(house / "benchmark" / model, "results.json")
        assert results["schema"] == 2
        for stands in results["standing"].values():
            assert stands["floor"]["tasks"]["flags"]["guessing"] == pytest.approx(1 / 6)
            assert stands["floor"]["tasks"]["captions"]["guessing"] == pytest.approx(1 / 14)
            assert not stands["above_guessing"]["mean"]
        acc1 = results["tasks"]["flags"]["protocols"]["standard"]["scores"]["acc1"]
        flags = results["standing"]["standard"]["tasks"]["flags"]
        assert flags == {part: acc1[part] for part in ("value", "low", "high")}  # one interval of one score
        said = manifest.read(house / "benchmark" / model).facts["verdict"]
        assert said.startswith(
            "nothing to promote: not above guessing: "
        )  # the "teacher" here is another student's folder
    assert results["reference"]["above_guessing"] == dict.fromkeys(results["standing"], False)


def test_scores_json_is_the_compact_form(house):
    for model in ("teacher", "pupil"):
        folder = house / "benchmark" / model
        results, scores = read(folder, "results.json"), read(folder, "scores.json")
        for task, entry in results["tasks"].items():
            parts = dict(entry["protocols"])
            if entry["fidelity"]:
                parts["fidelity"] = entry["fidelity"]
            assert scores[task] == {
                name: {metric: score["value"] for metric, score in part["scores"].items()}
                for name, part in parts.items()
            }


def test_outcomes_give_the_scores_again(house):
    folder = house / "benchmark" / "pupil"
    for task, entry in read(folder, "results.json")["tasks"].items():
        outcomes = load_file(folder / "outcomes" / f"{task}.safetensors")
        parts = {**entry["protocols"], "fidelity": entry["fidelity"]}
        for name, part in parts.items():
            for metric, score in part["scores"].items():
                weights = outcomes.get(f"weights.{name}.{metric}")
                mean = np.average(outcomes[f"{name}.{metric}"].astype(float), weights=weights)
                assert mean == pytest.approx(score["value"], abs=2e-6)
    flags = load_file(folder / "outcomes" / "flags.safetensors")
    assert np.array_equal(flags["standard.predicted"][:, 0] == flags["labels"], flags["standard.acc1"] == 1)
    captions = load_file(folder / "outcomes" / "captions.safetensors")
    assert captions["caption_image"].tolist() == [i for i in range(14) for _ in range(1 + i % 2)]
    assert len(captions["standard.text_to_image_rank"]) == 21
    assert len(captions["paper.text_to_image_rank"]) == 14
    assert captions["fidelity.images"].tolist() == sorted(set(captions["fidelity.images"].tolist()))


def test_two_models_are_compared_in_pairs_from_their_outcomes(house):
    a, b = (load_file(house / "benchmark" / m / "outcomes" / "captions.safetensors") for m in ("teacher", "pupil"))
    key, weights = "standard.text_to_image_r5", "weights.standard.text_to_image_r5"
    assert np.array_equal(a[weights], b[weights])
    found = np.average(a[key].astype(float) - b[key], weights=a[weights])
    scores = [read(house / "benchmark" / m, "scores.json")["captions"]["standard"] for m in ("teacher", "pupil")]
    assert found == pytest.approx(scores[0]["text_to_image_r5"] - scores[1]["text_to_image_r5"], abs=2e-6)


def test_examples_have_their_pictures_and_agree_with_the_outcomes(house):
    for model in ("teacher", "pupil"):
        folder = house / "benchmark" / model
        flags, captions = read(folder, "examples/flags.json"), read(folder, "examples/captions.json")
        for examples in (flags, captions):
            for data in examples["pictures"].values():
                with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                    assert (image.format, max(image.size) <= 128) == ("WEBP", True)
        outcomes = load_file(folder / "outcomes" / "flags.safetensors")
        for entry in flags["protocols"]["standard"]["images"]:
            assert str(entry["image"]) in flags["pictures"]
            assert entry["correct"] == bool(outcomes["standard.acc1"][entry["image"]])
            assert [p["score"] for p in entry["predicted"]] == sorted(p["score"] for p in entry["predicted"])[::-1]
        outcomes = load_file(folder / "outcomes" / "captions.safetensors")
        for protocol in ("standard", "paper"):
            found = captions["protocols"][protocol]
            for entry in found["text_to_image"]:
                assert {str(hit["image"]) for hit in entry["retrieved"]} <= set(captions["pictures"])
                right = [hit["correct"] for hit in entry["retrieved"]]
                assert right.index(True) == entry["rank"] if entry["rank"] < 5 else True not in right
            for entry in found["image_to_text"]:
                assert entry["rank"] == outcomes[f"{protocol}.image_to_text_rank"][entry["image"]]
                right = [hit["correct"] for hit in entry["retrieved"]]
                assert right.index(True) == entry["rank"] if entry["rank"] < 5 else True not in right
    same = [read(house / "benchmark" / m, "examples/captions.json") for m in ("teacher", "pupil")]
    queries = [[q["caption"] for q in e["protocols"]["standard"]["text_to_image"]] for e in same]
    assert queries[0] == queries[1]


def test_equal_inputs_give_equal_bytes(house, tmp_path):
    inputs = {"model": house / "pupil", "reference": house / "benchmark" / "teacher"}
    again = benchmark.run(settings(house / "tasks"), inputs, tmp_path / "again")
    first = manifest.read(house / "benchmark" / "pupil")
    assert again.fingerprint == first.fingerprint
    assert set(first.files) >= {"scores.json", "results.json", "outcomes/flags.safetensors"}
    assert not [name for name in first.files if name.startswith("volatile")]
    per_task = {name for name in first.files if "/" in name}
    assert len(per_task) == 3 * len(SCORES)  # each file is a request where folders travel by S3


def test_a_student_compared_with_itself_is_wholly_faithful(house, tmp_path):
    tree = settings(house / "tasks", speed=False)
    benchmark.run(tree, {"model": house / "teacher", "reference": house / "benchmark" / "teacher"}, tmp_path / "self")
    for task in SCORES:
        for value in read(tmp_path / "self", "scores.json")[task]["fidelity"].values():
            assert value == pytest.approx(1, abs=1e-5)
    assert not (tmp_path / "self" / "volatile" / "speed.json").exists()


def test_a_finished_folder_is_left_alone_and_a_killed_run_goes_on(house, tmp_path, monkeypatch):
    tree, inputs, output = settings(house / "tasks"), {"model": house / "pupil"}, tmp_path / "out"
    embedded = []
    original = embed_module.embed

    def embed(towers, task, *args, **options):
        embedded.append(task.name)
        if task.name == "flags" and len(embedded) == 2:
            raise KeyboardInterrupt  # killed during the second task
        return original(towers, task, *args, **options)

    monkeypatch.setattr(embed_module, "embed", embed)
    with pytest.raises(KeyboardInterrupt):
        benchmark.run(tree, inputs, output)
    assert not (output / "manifest.json").exists()
    whole = benchmark.run(tree, inputs, output)
    assert embedded == ["captions", "flags", "flags"]
    undisturbed = benchmark.run(tree, inputs, tmp_path / "undisturbed")
    assert whole.fingerprint == undisturbed.fingerprint
    embedded.clear()
    assert benchmark.run(tree, inputs, output) == whole
    assert not embedded


def test_a_changed_task_is_benchmarked_anew(house, tmp_path):
    shutil.copytree(house / "tasks", tmp_path / "tasks")
    tree = settings(tmp_path / "tasks", speed=False)
    first = benchmark.run(tree, {"model": house / "pupil"}, tmp_path / "out")
    (tmp_path / "tasks" / "flags" / "classnames.txt").write_text("".join(f"flag {c}\n" for c in range(6)))
    second = benchmark.run(tree, {"model": house / "pupil"}, tmp_path / "out")
    assert first.fingerprint != second.fingerprint
    assert read(tmp_path / "out", "results.json")["tasks"]["flags"]["classnames"][0] == "flag 0"


def test_one_protocol_and_chosen_tasks(house, tmp_path):
    tree = settings(house / "tasks", speed=False, protocols=["paper"], names=["flags"])
    benchmark.run(tree, {"model": house / "pupil", "reference": house / "benchmark" / "teacher"}, tmp_path / "out")
    scores = read(tmp_path / "out", "scores.json")
    assert {task: set(parts) for task, parts in scores.items()} == {"flags": {"paper", "fidelity"}}


def test_refusals(house, tmp_path):
    tree, model, reference = settings(house / "tasks"), house / "pupil", house / "benchmark" / "teacher"
    with pytest.raises(ParamsError, match=r"no task 'flag'.*Did you mean 'flags'"):
        benchmark.run(settings(house / "tasks", names=["flag"]), {"model": model}, tmp_path / "a")
    with pytest.raises(InputError, match="made by stage 'benchmark': no model"):
        benchmark.run(tree, {"model": reference}, tmp_path / "b")
    with pytest.raises(InputError, match="a folder made by 'benchmark' is needed"):
        benchmark.run(tree, {"model": model, "reference": model}, tmp_path / "c")
    with pytest.raises(InputError, match=r"gs://bucket/tasks is neither here nor in S3"):
        benchmark.run(settings("gs://bucket/tasks"), {"model": model}, tmp_path / "d")
    shutil.copytree(house / "tasks", tmp_path / "tasks")
    (tmp_path / "tasks" / "flags" / "classnames.txt").write_text("".join(f"flag {c}\n" for c in range(6)))
    with pytest.raises(InputError, match="the teacher saw another version of task 'flags'"):
        benchmark.run(settings(tmp_path / "tasks"), {"model": model, "reference": reference}, tmp_path / "e")
    shutil.copytree(model, tmp_path / "pupil")
    weights = tmp_path / "pupil" / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(InputError, match=r"open_clip_model\.safetensors is damaged"):
        benchmark.run(tree, {"model": tmp_path / "pupil"}, tmp_path / "f")


def test_a_reference_without_the_task_says_so(house, tmp_path):
    shutil.copytree(house / "tasks", tmp_path / "tasks")
    retrieval(tmp_path / "tasks", "more")
    tree = settings(tmp_path / "tasks", speed=False, names=["more"])
    benchmark.run(tree, {"model": house / "pupil", "reference": house / "benchmark" / "teacher"}, tmp_path / "out")
    found = read(tmp_path / "out", "results.json")["tasks"]["more"]["fidelity"]
    assert found["scores"] == {}
    assert found["undefined"] == {"all": "the reference was not benchmarked on this task"}
