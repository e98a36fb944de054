"""`cliprd retrain --runner kfp` here: KFP's local runner trains, and its gate and promotion are believed."""

import json

import pytest
import yaml

from cliprd import lineage
from tests.integration.pipeline import run
from tests.retrain import shapes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]


def test_trained_and_gated_then_promoted_without_training_again(tmp_path):
    shapes.tasks(tmp_path / "data" / "tasks", images=40)
    shapes.shard(tmp_path / "data" / "train" / "00000.tar", shapes.FIRST, 40, seed=0)
    tree = {
        **shapes.PARAMS,
        "data": {"path": str(tmp_path / "data" / "train")},
        "benchmark": {**shapes.PARAMS["benchmark"], "tasks": str(tmp_path / "data" / "tasks")},
        "teacher": {"aligned": {"epochs": 1, "image_size": 32, "batch_size": 64}},
        "distill": {**shapes.PARAMS["distill"], "epochs": 2},
        "promote": {"champion": str(tmp_path / "champion"), "allow_guessing": True},
        "tracking": {"uri": ""},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))

    def retrain(*arguments):
        command = ["cliprd", "retrain", "--runner", "kfp", "--local", "process", *arguments]
        told = run(tmp_path, *command, env={"OMP_NUM_THREADS": "1"}).stdout
        return told, json.loads((tmp_path / "work" / "retrain" / "report.json").read_text())

    told, report = retrain("--no-promote")
    assert report["ending"] == "passed"
    assert set(report["scores"]["candidate"]["tasks"]) == {"colours", "shapes"}
    assert not (tmp_path / "champion" / "champion.json").exists()
    told, report = retrain()
    assert "distill                  was finished already" in told
    assert report["ending"] == "promoted"
    held = json.loads((tmp_path / "champion" / "champion.json").read_text())
    assert report["version"] == held["version"]
    assert lineage.of(tmp_path / "champion" / held["version"])["facts"]["run"] == "baseline-0"
    told, report = retrain()
    assert report["ending"] == "nothing"
