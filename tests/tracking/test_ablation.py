"""Scores, pictures and report in MLflow (PostgreSQL, S3), and the ablation they make: a table, and MLflow's page."""

import json
import time

import pytest
from mlflow import MlflowClient

from cliprd import cli, tracking
from cliprd.artifact import manifest
from cliprd.errors import InputError, ParamsError, RetryableError
from cliprd.stages import compare
from cliprd.tracking import ablation, scores, server
from cliprd.tracking.training import KIND
from tests.mlflow_server import LIMIT, mlflow_server  # noqa: F401 — a fixture
from tests.report import folders
from tests.report.browser import Browser
from tests.tracking.trainings import inputs, record, training, tree

pytestmark = pytest.mark.integration
METHODS, SEEDS = ["clip_kd", "vrd", "xrd"], [0, 1]


GRID = {"ablation": {"methods": METHODS, "seeds": SEEDS}, "compare": {"reference": "clip_kd"}}


def compared(settings, grid, output):
    """`cliprd compare`, as its command calls it."""
    with tracking.following(settings, "compare", grid, output):
        compare.run(settings, grid, output)


@pytest.fixture(scope="module")
def grid(mlflow_server, tmp_path_factory):  # noqa: F811
    """Students that were trained and benchmarked; `compare` has logged what `benchmark` would have."""
    root = tmp_path_factory.mktemp("grid")
    folder = folders.write_grid(root, METHODS, SEEDS, only=folders.tasks()[:2])
    settings = tree(mlflow_server.uri, "ablation", **GRID)
    for method in METHODS:
        for seed in SEEDS:
            distill = settings.distill.model_copy(update={"method": method, "seed": seed})
            student = folder["students"] / f"{method}-{seed}"
            written = manifest.read(student)
            with training(settings.model_copy(update={"distill": distill}), inputs(root), student) as write:
                for step in (1, 2):
                    write(record(step, terms={"task": 1.0 / step, method: 0.25}))
            resealed(folder["benchmarks"] / student.name, student, written)
    for scored in folder["benchmarks"].iterdir():
        (scored / "scores.json").write_text("{}")
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    compared(settings, folder, root / "reports")
    assert {p: p.read_bytes() for p in before} == before
    return settings, folder, root / "reports"


def resealed(benchmark, student, before):
    """The benchmark of the student as it is now."""
    trained = manifest.write(student, stage="distill", params=before.params, inputs=before.inputs, facts=before.facts)
    scored = manifest.read(benchmark)
    manifest.write(benchmark, stage="benchmark", params=scored.params, inputs={"model": trained.fingerprint})


def found(settings, kind):
    client = MlflowClient(settings.tracking.uri)
    experiment = client.get_experiment_by_name(settings.tracking.experiment).experiment_id
    return client, {r.info.run_name: r for r in client.search_runs([experiment], f"tags.`{KIND}` = '{kind}'")}


def names(client, run, path=None):
    return {artifact.path for artifact in client.list_artifacts(run.info.run_id, path)}


def test_scores_come_with_their_intervals_and_pictures(grid):
    settings, folder, _ = grid
    client, trainings = found(settings, "training")
    assert set(trainings) == {f"{m}-{s}" for m in METHODS for s in SEEDS}
    run = trainings["xrd-0"]
    results = folders.read(folder["benchmarks"] / "xrd-0" / "results.json")
    for task, facts in results["tasks"].items():
        for protocol, entry in facts["protocols"].items():
            for metric, score in entry["scores"].items():
                for prefix, part in (("score", "value"), ("low", "low"), ("high", "high")):
                    assert run.data.metrics[f"{prefix}/{task}/{protocol}/{metric}"] == score[part]
    primary = [run.data.metrics[f"score/{task}"] for task in results["tasks"]]
    assert run.data.metrics["score/mean"] == pytest.approx(sum(primary) / len(primary))
    assert run.data.metrics["low/mean"] < run.data.metrics["score/mean"] < run.data.metrics["high/mean"]
    assert run.data.tags[scores.STANDING].startswith("above guessing: ")
    for task, facts in results["tasks"].items():
        guess = 1 / len(facts["classnames"])
        assert run.data.metrics[f"guessing/{task}"] == pytest.approx(guess)
        assert run.data.metrics[f"majority/{task}"] > guess
    assert run.data.metrics["floor/mean"] < run.data.metrics["low/mean"]
    assert names(client, run) == {"benchmark", "confusion", "history.csv", "plots", "report.html", "retrieval.html"}
    assert {"plots/loss.svg", "plots/xrd.svg", "plots/grad_norm.svg"} <= names(client, run, "plots")
    assert names(client, run, "benchmark") == {"benchmark/results.json", "benchmark/scores.json"}


def test_the_report_lies_in_the_parent_run_once(grid):
    settings, folder, reports = grid
    client, parents = found(settings, "ablation")
    (parent,) = parents.values()
    assert names(client, parent, "report") == {
        f"report/{n}" for n in ("comparison.md", "comparison.json", "index.html")
    }
    content = folders.read(reports / "comparison.json")
    block = content["protocols"][content["protocol"]]["methods"]
    assert parent.data.metrics["score/mean/xrd"] == block["xrd"]["mean"]["value"]
    assert parent.data.metrics["low/difference/xrd"] == block["xrd"]["difference"]["mean"]["low"]
    headline = content["protocols"][content["protocol"]]["headline"]
    assert parent.data.tags[scores.HEADLINE] == headline
    told = json.loads(parent.data.tags[scores.VERDICTS])
    assert told["methods"] == {m: entry.get("verdict", "reference") for m, entry in block.items()}
    assert (told["confidence"], told["covers"], told["not_above_guessing"]) == (0.95, "examples and seeds", [])
    history = client.get_metric_history(parent.info.run_id, "score/mean/xrd")
    compared(settings, folder, reports)  # finished: nothing is logged again
    assert client.get_metric_history(parent.info.run_id, "score/mean/xrd") == history


def test_a_server_that_was_away_gets_scores_with_the_next_call(grid, monkeypatch, capsys):
    settings, folder, reports = grid
    client, trainings = found(settings, "training")
    run = trainings["vrd-1"]
    client.delete_tag(run.info.run_id, scores.BENCHMARK)  # as if the server had been away
    away = settings.model_copy(update={"tracking": settings.tracking.model_copy(update={"uri": "http://127.0.0.1:9"})})
    compared(away, folder, reports)
    assert "are not tracked" in capsys.readouterr().err
    compared(settings, folder, reports)
    written = manifest.read(folder["benchmarks"] / "vrd-1")
    assert client.get_run(run.info.run_id).data.tags[scores.BENCHMARK] == written.fingerprint
    assert len(client.get_metric_history(run.info.run_id, "score/mean")) == 1  # equal scores are logged once


def test_the_table_has_the_best_first(grid, capsys):
    settings, _, _ = grid
    (table,) = ablation.tables(settings)
    (parent,) = found(settings, "ablation")[1].values()
    assert (table.name, table.note.partition(",")[0]) == (parent.info.run_name, "300 pairs")
    means = [row.score["value"] for row in table.runs]
    assert len(means) == 6
    assert means == sorted(means, reverse=True)
    assert {row.name for row in table.methods} == {"teacher", *METHODS}
    assert table.methods[0].name == "teacher"
    row = next(row for row in table.runs if row.name == "vrd-0")
    assert (row.status, row.step, row.terms) == ("FINISHED", 2, {"total": 0.75, "task": 0.5, "vrd": 0.25})
    shown = ["ablation", "show", "--set", f"tracking.uri={settings.tracking.uri}", "--experiment", "ablation"]
    assert cli.main(shown) == 0
    said = capsys.readouterr().out
    assert said == ablation.text([table])
    assert table.headline in said
    assert "95% intervals over examples and seeds." in said
    assert {row.name: row.verdict for row in table.methods if row.name in ("teacher", "clip_kd")} == {
        "teacher": "", "clip_kd": "reference",
    }  # fmt: skip
    assert {row.verdict for row in table.methods if row.name in ("vrd", "xrd")} <= {"better", "worse", "open"}
    head, *lines = said.split("\n\n")[-1].splitlines()
    assert head.split() == ["run", "status", "mean", "step", "total", "task", "vrd", "xrd", "clip_kd"]
    assert [line.split()[0] for line in lines] == [row.name for row in table.runs]


def test_nothing_tracked_and_nobody_there_are_told(mlflow_server):  # noqa: F811
    with pytest.raises(InputError, match="No training is tracked in experiment 'other'"):
        ablation.tables(tree(mlflow_server.uri, "other"))
    with pytest.raises(RetryableError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        ablation.page(tree("http://127.0.0.1:9"))
    with pytest.raises(ParamsError, match="MLFLOW_TRACKING_USERNAME") as told:
        tree("http://someone:secret@127.0.0.1:9")
    assert "secret" not in str(told.value)
    assert server.clean("at postgresql://someone:secret@host/db\nit failed") == "at postgresql://host/db it failed"


def test_the_page_opens_with_columns_order_and_filter(grid, capsys):
    settings, _, _ = grid
    asked = [
        "ablation",
        "open",
        "--print",
        "--set",
        f"tracking.uri={settings.tracking.uri}",
        "--experiment",
        "ablation",
    ]
    assert cli.main(asked) == 0
    address = capsys.readouterr().out.strip()
    (table,) = ablation.tables(settings)
    with Browser() as browser:
        tab = browser.open(address, width=4800)
        seen = until(
            tab,
            """[[...document.querySelectorAll('.ag-header-cell')].map(e => e.innerText.trim()),
                [...document.querySelectorAll('.ag-pinned-left-cols-container .ag-row')].map(
                    e => [+e.getAttribute('row-index'), e.innerText.split('\\n')]).sort((a, b) => a[0] - b[0])]""",
            lambda seen: len(seen[1]) >= 6 and "score/mean" in seen[0],
        )
        heads, rows = seen
        names = [row.name for row in table.runs]
        assert [next(iter(set(text) & set(names)), text) for _, text in rows] == names  # the parent is filtered out
        assert {"score/mean", "low/mean", "high/mean", "method", "seed", "loss/total", "loss/vrd", "loss/xrd"} <= set(
            heads
        )
        chart = browser.open(f"{address}&compareRunsMode=CHART", width=1600)
        charts = until(
            chart,
            "[...document.querySelectorAll('.js-plotly-plot')].length && document.body.innerText",
            lambda text: text and "score/mean" in text and "loss/vrd" in text,
        )
        assert charts.index("score/mean") < charts.index("loss/total") < charts.index("loss/vrd")


def until(tab, expression, good):
    end = time.monotonic() + LIMIT
    while not good(seen := tab.evaluate(expression)):
        assert time.monotonic() < end, seen
        time.sleep(0.2)
    return seen


def test_a_database_is_told_how_to_be_served(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = tree(f"sqlite:///{tmp_path}/mlflow.db", "ablation")
    with training(settings, inputs(tmp_path), tmp_path / "s") as write:
        write(record(1))
    assert tracking.run_of(settings, tmp_path / "s")
    (tmp_path / "params.yaml").write_text(f"tracking: {{uri: 'sqlite:///{tmp_path}/mlflow.db', experiment: ablation}}")
    assert cli.main(["ablation", "open"]) == 0
    said = capsys.readouterr()
    assert "mlflow ui --backend-store-uri sqlite://" in said.err
    assert said.out.startswith("http://127.0.0.1:5000/#/experiments/")
