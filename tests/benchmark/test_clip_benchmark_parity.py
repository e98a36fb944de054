"""Our numbers against CLIP_benchmark's own, on the same saved student and the same task folders."""

import json
import warnings

import numpy as np
import pytest
import torch

from cliprd.benchmark.embed import embed
from cliprd.benchmark.prompts import counted_captions, imagenet_templates
from cliprd.benchmark.retrieval import retrieve
from cliprd.benchmark.tasks import load_task
from cliprd.benchmark.towers import Towers
from cliprd.benchmark.zeroshot import classify
from tests.benchmark.tools import classification, retrieval, student, unit

cli = pytest.importorskip("clip_benchmark.cli")
theirs_classification = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
theirs_retrieval = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
sklearn_metrics = pytest.importorskip("sklearn.metrics")


def clip_benchmark(monkeypatch, tmp_path, folder, model, task=None):
    """What `clip_benchmark eval` says of an open_clip folder on a local WebDataset task, in float32."""
    output = tmp_path / f"{folder.name}.json"
    arguments = {
        "dataset": f"wds/{folder.name}", "dataset_root": folder, "model": f"local-dir:{model}", "pretrained": "",
        "output": output, "num_workers": 0, "batch_size": 8,
    }  # fmt: skip
    task = task or ("zeroshot_retrieval" if (folder / "dataset_type.txt").exists() else "zeroshot_classification")
    argv = [part for key, value in arguments.items() for part in (f"--{key}", str(value))]
    argv += ["--no_amp", "--task", task, "--recall_k", "1", "5", "10"]
    monkeypatch.setattr("sys.argv", ["clip_benchmark", "eval", *argv])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cli.main()
    return json.loads(output.read_text())["metrics"]


def means(outcomes):
    return {m: float(np.average(v, weights=outcomes.weights.get(m))) for m, v in outcomes.values.items()}


@pytest.fixture(autouse=True)
def _old_numpy(monkeypatch):
    """Its `accuracy` calls float() on arrays of one element, which numpy has come to refuse."""
    monkeypatch.setattr(
        theirs_classification, "float", lambda x: float(np.asarray(x, dtype=float).item()), raising=False
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    return folder, Towers(student(folder, seed=1))


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("classes", [4, 9])
def test_classification_scores_equal_clip_benchmarks(monkeypatch, tmp_path, model, protocol, classes):
    folder = classification(tmp_path, n=60, classes=classes, tars=3)
    rows = embed(model[1], load_task(folder), [protocol], batch_size=16)
    ours = means(classify(rows["image"], rows[f"class.{protocol}"], load_task(folder).labels))
    if protocol == "paper":
        (folder / "zeroshot_classification_templates.txt").write_text("\n".join(imagenet_templates()))
    theirs = clip_benchmark(monkeypatch, tmp_path, folder, model[0])
    if classes < 5:
        assert np.isnan(theirs.pop("acc5"))
    assert 0 < ours["acc1"] < 0.9
    assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_retrieval_scores_equal_clip_benchmarks(monkeypatch, tmp_path, model, protocol):
    words = np.array(["red", "green", "small", "big", "car", "bird", "house", "river", "blue", "old"])
    rng = np.random.default_rng(3)
    captions = [[" ".join(rng.permutation(words)[: rng.integers(2, 8)]) for _ in range(1 + i % 4)] for i in range(30)]
    task = load_task(retrieval(tmp_path, captions=captions, tars=2))
    rows = embed(model[1], task, [protocol], batch_size=16)
    counted = counted_captions(task, protocol)
    owner = np.repeat(np.arange(30), [len(own) for own in captions])[counted]
    ours = means(retrieve(rows["image"], rows["text"][counted], owner))
    kept = captions if protocol == "standard" else [own[:1] for own in captions]
    theirs = clip_benchmark(monkeypatch, tmp_path, retrieval(tmp_path / "kept", captions=kept, tars=2), model[0])
    renamed = {
        key.replace("image_retrieval_recall@", "text_to_image_r").replace(
            "text_retrieval_recall@", "image_to_text_r"
        ): v
        for key, v in theirs.items()
    }
    assert 0 < ours["image_to_text_r10"] < 1
    assert ours == pytest.approx(renamed, abs=1e-6)


def test_scoring_functions_equal_clip_benchmarks_on_random_embeddings():
    rng = np.random.default_rng(0)
    for seed in range(20):
        n, c = int(rng.integers(8, 80)), int(rng.integers(5, 30))
        images, classes = unit(rng.normal(size=(n, 12))), unit(rng.normal(size=(c, 12)))
        labels = rng.integers(0, c, n)
        ours = classify(images, classes, labels)
        logits, target = torch.from_numpy(100 * images @ classes.T), torch.from_numpy(labels)
        acc1, acc5 = theirs_classification.accuracy(logits, target, topk=(1, 5))
        with warnings.catch_warnings(action="ignore"):  # of classes that are predicted and never true
            recall = sklearn_metrics.balanced_accuracy_score(labels, logits.argmax(dim=1))
        expected = {"acc1": acc1, "acc5": acc5, "mean_per_class_recall": recall}
        assert means(ours) == pytest.approx(expected, abs=1e-6), seed

        owner = np.sort(np.concatenate([np.arange(n), rng.integers(0, n, n)]))
        texts = unit(images[owner] + rng.normal(size=(len(owner), 12)))
        found = means(retrieve(images, texts, owner))
        scores = torch.from_numpy(texts @ images.T)
        positive = torch.from_numpy(owner[:, None] == np.arange(n))
        for k in (1, 5):
            to_image = theirs_retrieval.recall_at_k(scores, positive, k) > 0
            to_text = theirs_retrieval.recall_at_k(scores.T, positive.T, k) > 0
            assert found[f"text_to_image_r{k}"] == pytest.approx(to_image.float().mean().item(), abs=1e-6)
            assert found[f"image_to_text_r{k}"] == pytest.approx(to_text.float().mean().item(), abs=1e-6)
