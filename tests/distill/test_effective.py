"""What was in force stands wherever a training is described, whatever the parameters say."""

import re

import pytest
import torch

from cliprd import lineage, params, tracking
from cliprd.artifact import manifest
from cliprd.distill.device import Runtime
from cliprd.distill.effective import effective
from cliprd.distill.objective import build_loss
from cliprd.distill.sections import code, sections
from cliprd.report import card

SAMPLES, BATCH = 300, 128
SPECS = [method + suffix for method in params.METHODS for suffix in ("", "-raw", "-exp")]


def faces(tree: params.Params, found: dict) -> dict[str, str]:
    """Face → what it shows of `distill`, as `name value` pairs."""
    facts = {"run": "r", "effective": found, "weights": found["distill"]["weights"]}
    shards = manifest.Manifest(
        stage="prepare",
        params={"path": "p"},
        inputs={},
        files={},
        facts={"samples": SAMPLES, "shards": 1, "rejected": 0},
    )
    cache = manifest.Manifest(stage="cache", params={"cache": {"views": 1}}, inputs={}, files={}, facts={})
    made_of = {
        "shards": {**lineage.summary(shards), "code": "c", "sources": []},
        "cache": {**lineage.summary(cache), "code": "c", "inputs": {"teacher": lineage.summary(cache)}},
    }
    told = lineage.describe(lineage.of_student(sections(tree), facts, made_of, code(tree)))
    trained = {"params": sections(tree), "facts": facts, "inputs": {}, "code": "c"}
    run = tracking.describe(tree, key="k", shards=shards, cache=cache, device="cpu", processes=1, effective=found)
    return {
        "lineage": next(line for line in told.splitlines() if "params" in line),
        "card": "; ".join(card._lineage(trained, None)),
        "MLflow": ", ".join(f"{name.removeprefix('distill.')} {value}" for name, value in run.params.items()),
        "MLflow's ablation": ", ".join(
            f"{name.removeprefix('distill.')} {value}" for name, value in run.ablation["params"].items()
        ),
    }


@pytest.mark.parametrize("mode", ["raw", "exp"])
@pytest.mark.parametrize("method", SPECS)
def test_effective_has_only_values_in_force(method, mode):
    tree = params.Params.model_validate({"distill": {"method": method, "scale_mode": mode, "batch_size": BATCH}})
    loss = build_loss(tree.distill, 8, 8)
    runtime = Runtime(torch.device("cpu"), bf16=False)
    found = effective(tree.distill, samples=SAMPLES, student_dim=8, teacher_dim=8, runtime=runtime)
    right = {
        "scale_mode": loss.scale_mode if loss.multipliers() else None,
        "max_scale": 100.0 if loss.multipliers() and loss.scale_mode == "raw" else None,
        "batch_size": 100,  # 300 pairs in three equal batches
        "precision": "fp32",
        "device": "cpu",
    }
    assert {name: found["distill"][name] for name in right} == right
    assert found["distill"]["weights"] == loss.weights.named()
    shown = faces(tree, found)
    for face, text in shown.items():
        for name, value in right.items():
            seen = re.findall(rf"(?:^|[\s,]){name} ([\w.]+)", text)
            assert set(seen) <= {str(value)}, f"{face}: {text}"
    assert f"batch_size {100}" in shown["lineage"]
    assert f"batch_size {100}" in shown["MLflow"]
    for term, weight in loss.weights.named().items():
        assert f"weights.{term} {weight}" in shown["lineage"]
        assert f"weight/{term} {weight:g}" in shown["MLflow"]
    for name in ("scale_mode", "weights", "max_scale"):
        assert name not in shown["MLflow's ablation"]  # its children differ in it


def test_arms_of_one_grid_are_of_one_ablation():
    def key(**distill):
        tree = params.Params.model_validate({"distill": distill})
        runtime = Runtime(torch.device("cpu"), bf16=False)
        found = effective(tree.distill, samples=SAMPLES, student_dim=8, teacher_dim=8, runtime=runtime)
        empty = manifest.Manifest(stage="cache", params={}, inputs={}, files={}, facts={"samples": SAMPLES})
        run = tracking.describe(tree, key="k", shards=empty, cache=empty, device="cpu", processes=1, effective=found)
        return run.ablation["key"], run.ablation["params"]

    first = key(method="baseline")
    assert all(key(method=method, seed=3) == first for method in SPECS)
    assert key(method="baseline", lr=0.5)[0] != first[0]
    assert key(method="baseline", weights={"fd": 5.0})[0] != first[0]


@pytest.mark.parametrize(
    ("dims", "project", "right"), [((8, 8), True, None), ((8, 16), True, True), ((8, 16), False, False)]
)
def test_project_task_counts_where_widths_differ(dims, project, right):
    distill = params.Distill(project_task=project)
    runtime = Runtime(torch.device("cpu"), bf16=True)
    found = effective(distill, samples=1, student_dim=dims[0], teacher_dim=dims[1], runtime=runtime)["distill"]
    assert found["project_task"] is right
    assert found["precision"] == "bf16"
