"""Task folders that CLIP_benchmark's own converter has written, scored here and by CLIP_benchmark itself."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from cliprd import params
from cliprd.artifact import manifest
from cliprd.benchmark.task_set import load_tasks
from cliprd.cli import main
from tests.benchmark.test_clip_benchmark_parity import _old_numpy, cli, clip_benchmark  # noqa: F401 — a fixture
from tests.benchmark.tools import STUDENT, student

builder = pytest.importorskip("clip_benchmark.webdataset_builder")
selection = pytest.importorskip("clip_benchmark.metrics.image_caption_selection")
WORDS = ["red", "green", "small", "big", "car", "bird", "house", "river", "blue", "old"]


class Set(torch.utils.data.Dataset):
    """Random pictures with labels, as the data sets of CLIP_benchmark are."""

    def __init__(self, labels, classes=None, image_format="webp", seed=0):
        self.labels, self.seed = labels, seed
        self.encode = builder.PIL_to_bytes(image_format)
        if classes is not None:
            self.classes, self.templates = classes, ["a photo of a {c}.", "{c}, a {c}"]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        pixels = np.random.default_rng([self.seed, i]).integers(0, 256, (17, 20, 3), dtype=np.uint8)
        return self.encode(Image.fromarray(pixels)), self.labels[i]


def sentences(seed, counts):
    rng = np.random.default_rng(seed)
    return [[" ".join(rng.permutation(WORDS)[: rng.integers(2, 8)]) for _ in range(count)] for count in counts]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A set of each kind, by the converter's own functions; more than one tar where it makes them."""
    root = tmp_path_factory.mktemp("converted") / "tasks"
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 6, 40).tolist()
    distance = ["a car very near", "a car near", "a car at middle distance", "", "a car far", "no car"]
    several = torch.tensor(rng.random((40, 7)) < 0.3).float()
    several[:, 5] = 0  # a class that no image shows
    with pytest.MonkeyPatch.context() as patch:  # its eight worker processes would be most of the test
        loader = torch.utils.data.DataLoader
        patch.setattr(torch.utils.data, "DataLoader", lambda *a, **k: loader(*a, **{**k, "num_workers": 0}))
        convert = {"max_count": 16, "verbose": False}
        empty = Set(numbers, distance, "png")
        builder.convert_dataset(empty, "test", str(root / "wds_kitti"), image_format="png", **convert)
        builder.convert_dataset(empty, "train", str(root / "wds_kitti"), image_format="png", **convert)
        last = Set([0, 1, 2, 1], ["one", "two", ""])  # its file ends with an empty line, which a label names
        builder.convert_dataset(last, "test", str(root / "vtab" / "last"), **convert)
        shown = Set(several, WORDS[:7], "jpg")
        builder.convert_dataset(shown, "test", str(root / "voc"), image_format="jpg", multilabel=True, **convert)
        captions = Set(sentences(2, [1 + i % 5 for i in range(40)]))
        builder.convert_retrieval_dataset(captions, "test", str(root / "flickr"), **convert)
        choice = Set(sentences(3, [2] * 40), seed=5)
        builder.convert_retrieval_dataset(choice, "test", str(root / "sugar_crepe" / "add_att"), **convert)
    (root / "README.md").write_text("notes")
    (root / ".DS_Store").write_bytes(b"\0")
    (root / "._voc").write_bytes(b"\0")
    return root


@pytest.fixture(scope="module")
def scored(converted, tmp_path_factory):
    """`cliprd benchmark` of a random student on all of them."""
    work = tmp_path_factory.mktemp("work")
    student(work / "model", seed=1)
    described = {"distill": {"method": "clip_kd", "seed": 0}, "student": STUDENT.model_dump(mode="json")}
    manifest.write(work / "model", stage="distill", params=described, inputs={}, facts={"run": "clip_kd-0"})
    section = {"tasks": str(converted), "batch_size": 8, "bootstrap": 50, "speed": False}
    settings = {"benchmark": section, "student": STUDENT.model_dump(mode="json"), "tracking": {"uri": ""}}
    (work / "params.yaml").write_text(params.dump(params.validate(settings, where="test")))
    arguments = ["--model", str(work / "model"), "--output", str(work / "out"), "--params", str(work / "params.yaml")]
    assert main(["benchmark", *arguments]) == 0
    return work


def scores(work, task):
    return json.loads((work / "out" / "scores.json").read_text())[task]["standard"]


def test_every_kind_is_recognised_in_the_converters_output(converted):
    found = load_tasks(converted)
    assert {task.name: task.kind for task in found.tasks} == {
        "flickr": "retrieval", "sugar_crepe-add_att": "image_caption_selection", "voc": "multilabel",
        "vtab-last": "classification", "wds_kitti": "classification",
    }  # fmt: skip
    assert found.left_out == {}
    tasks = {task.name: task for task in found.tasks}
    assert tasks["wds_kitti"].classnames[3] == ""
    assert len(tasks["wds_kitti"].tars) == 3
    assert tasks["vtab-last"].classnames == ("one", "two", "")


@pytest.mark.parametrize(("task", "folder"), [("wds_kitti", "wds_kitti"), ("vtab-last", "vtab/last"), ("voc", "voc")])
def test_classes_score_as_in_clip_benchmark(converted, scored, monkeypatch, tmp_path, task, folder):
    theirs = clip_benchmark(monkeypatch, tmp_path, converted / folder, scored / "model", task="zeroshot_classification")
    if np.isnan(theirs.get("acc5", 0)):
        del theirs["acc5"]
    assert scores(scored, task) == pytest.approx(theirs, abs=2e-6)


def test_retrieval_scores_as_in_clip_benchmark(converted, scored, monkeypatch, tmp_path):
    theirs = clip_benchmark(monkeypatch, tmp_path, converted / "flickr", scored / "model", task="zeroshot_retrieval")
    renamed = {
        key.replace("image_retrieval_recall@", "text_to_image_r").replace(
            "text_retrieval_recall@", "image_to_text_r"
        ): v
        for key, v in theirs.items()
    }
    assert scores(scored, "flickr") == pytest.approx(renamed, abs=2e-6)


def test_selection_scores_as_in_clip_benchmark(converted, scored, monkeypatch, tmp_path):
    """Its command line does so for the name `sugar_crepe/...` alone, and not of a converted one; its function does."""
    theirs = clip_benchmark(
        monkeypatch, tmp_path, converted / "sugar_crepe" / "add_att", scored / "model", task="image_caption_selection"
    )
    assert 0 < theirs["text_acc"] < 1
    assert (theirs["image_acc"], theirs["acc"]) == (1.0, theirs["text_acc"])
    assert scores(scored, "sugar_crepe-add_att") == pytest.approx({"text_acc": theirs["text_acc"]}, abs=2e-6)


def test_every_task_has_outcomes_examples_and_guessing_rates(scored):
    results = json.loads((scored / "out" / "results.json").read_text())
    assert {name: entry["chance"] for name, entry in results["tasks"].items()} == {
        "flickr": 1 / 40, "sugar_crepe-add_att": 0.5, "voc": pytest.approx(0.25, abs=0.08), "vtab-last": 0.333333,
        "wds_kitti": 0.166667,
    }  # fmt: skip
    for name in ("voc", "sugar_crepe-add_att"):
        examples = json.loads((scored / "out" / "examples" / f"{name}.json").read_text())
        for entry in examples["protocols"]["standard"]["images"]:
            assert entry["correct"] == entry["predicted"][0]["correct"]
            with Image.open(io.BytesIO(base64.b64decode(examples["pictures"][str(entry["image"])]))) as image:
                assert image.format == "WEBP"
    kitti = json.loads((scored / "out" / "examples" / "wds_kitti.json").read_text())
    assert "(class 3, no name)" in {entry["label"] for entry in kitti["protocols"]["standard"]["images"]}
