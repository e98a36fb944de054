"""`cliprd retrain --runner kfp` against a cluster: what is started, and what is believed of how it ended."""

import json

import pytest
import yaml

from cliprd import cli
from cliprd.params import load
from cliprd.promotion import champion
from tests.kubeflow.paths import IMAGE
from tests.retrain import shapes

REFUSED = {"passed": False, "verdict": "not better", "reason": "+0.1 points: not better", "champion": None}


@pytest.fixture
def here(tmp_path, alone, monkeypatch):
    """A folder with parameters and a little data."""
    shapes.tasks(tmp_path / "tasks", images=8)
    shapes.shard(tmp_path / "train" / "00000.tar", shapes.FIRST, 4, seed=0)
    tree = {
        "data": {"path": str(tmp_path / "train")},
        "benchmark": {"tasks": str(tmp_path / "tasks")},
        "retrain": {"method": "vrd-exp", "seeds": [3]},
        "promote": {"champion": str(tmp_path / "champion")},
        "tracking": {"uri": ""},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def retrain(server, capsys, *arguments):
    code = cli.main(["retrain", "--runner", "kfp", "--host", server.host, "--image", IMAGE, *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def says(here, server, told):
    """The run's gate leaves its word beside the champion, as the component does."""

    def leave():
        params = load(here / "params.yaml")
        champion.note(params.promote.champion, params, f"{server.runs[-1]['run_id']}/gate", told)

    server.on_run = leave


def report(here):
    return json.loads((here / "work" / "retrain" / "report.json").read_text())


def test_the_pipeline_is_started_with_what_is_to_be_trained_and_its_gate_believed(here, server, capsys):
    says(here, server, REFUSED)
    code, out, _ = retrain(server, capsys)
    assert code == 0
    (run,) = server.runs
    assert run["runtime_config"]["parameters"] == {"method": "vrd-exp", "seed": 3, "publish": True}
    assert "refused by the gate: +0.1 points: not better" in out
    assert report(here)["ending"] == "refused"

    says(here, server, {**REFUSED, "passed": True, "verdict": "first", "reason": "there is no champion yet"})
    code, out, _ = retrain(server, capsys, "--no-promote")
    assert code == 0
    assert server.runs[-1]["runtime_config"]["parameters"]["publish"] is False
    assert report(here)["ending"] == "passed"


def test_a_run_that_let_it_pass_and_promoted_nobody_is_not_believed(here, server, capsys):
    says(here, server, {**REFUSED, "passed": True, "verdict": "first", "reason": "there is no champion yet"})
    code, _, err = retrain(server, capsys)
    assert code == 3
    assert "the champion is unchanged" in err
    assert report(here)["ending"] == "failed"


def test_a_run_without_a_word_of_its_gate_is_not_believed(here, server, capsys):
    code, _, err = retrain(server, capsys)
    assert code == 3
    assert "no decision of its gate" in err


def test_the_pipeline_trains_one_seed(here, server, capsys):
    code, _, err = retrain(server, capsys, "--set", "retrain.seeds=[0,1]")
    assert code == 2
    assert "--runner dvc" in err
    assert not server.runs


def test_a_dry_run_starts_nothing(here, server, capsys):
    code, out, _ = retrain(server, capsys, "--dry-run")
    assert code == 0
    assert "`distill`" in out
    assert not server.runs
    assert not (here / "champion").exists()
