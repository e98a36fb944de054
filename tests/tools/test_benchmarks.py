"""The benchmarks' own arithmetic: the guard that compares results, and the cost model."""

import ast
import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


guard, cost_model, standing = load("guard"), load("cost_model"), load("standing")


def result(rows, **more):
    return {"command": "python benchmarks/x.py", "device": "a machine", "rows": rows, **more}


@pytest.fixture
def results(tmp_path):
    """A repository with one committed result."""
    rows = [
        {"path": "plain", "n": 64, "seconds": 9.0, "throughput_ratio": 1.0},
        {"path": "ours", "n": 64, "seconds": 3.0, "throughput_ratio": 3.0, "memory_ratio": 0.5, "odd_ratio": 1.0},
    ]
    (tmp_path / "cache.json").write_text(json.dumps(result(rows)))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "results"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def run(results, *options):
    command = [sys.executable, str(BENCHMARKS / "guard.py"), "--results", str(results), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def change(results, index, **fields):
    path = results / "cache.json"
    record = json.loads(path.read_text())
    record["rows"][index] |= fields
    path.write_text(json.dumps(record))


def test_what_was_not_run_again_is_said(results):
    assert run(results) == (0, "cache: as in HEAD, not run again\n")


def test_seconds_and_noise_are_no_matter(results):
    change(results, 1, seconds=30.0, throughput_ratio=2.7, memory_ratio=0.55)
    code, said = run(results)
    assert code == 0
    assert "4 same (band ±15 %)" in said


def test_worse_is_told_in_both_directions_and_fails(results):
    change(results, 1, throughput_ratio=2.0, memory_ratio=0.7)
    code, said = run(results)
    assert code == 1
    assert "worse: ours, n 64: throughput_ratio 3 -> 2 (-33 %, more is better)" in said
    assert "worse: ours, n 64: memory_ratio 0.5 -> 0.7 (+40 %, less is better)" in said
    assert run(results, "--band", "0.5")[0] == 0


def test_better_is_told_and_passes(results):
    change(results, 1, throughput_ratio=6.0, memory_ratio=0.1)
    code, said = run(results)
    assert code == 0
    assert "2 better" in said


def test_a_ratio_of_unknown_direction_only_moves(results):
    change(results, 1, odd_ratio=9.0)
    code, said = run(results)
    assert code == 0
    assert "moved: ours, n 64: odd_ratio 1 -> 9" in said


def test_rows_of_other_sizes_are_not_compared_and_a_missing_one_is_named(results):
    change(results, 1, n=128, throughput_ratio=1.0)
    code, said = run(results)
    assert code == 0
    assert "gone: ours, n 64" in said


def test_another_device_and_new_results_are_said(results):
    record = json.loads((results / "cache.json").read_text())
    (results / "cache.json").write_text(json.dumps({**record, "device": "another one"}))
    (results / "fresh.json").write_text(json.dumps(record))
    code, said = run(results)
    assert code == 0
    assert "another device: a machine  ->  another one" in said
    assert "fresh: new" in said
    assert run(results, "none")[0] == 2


def test_every_ratio_of_the_committed_results_has_a_direction():
    for path in (BENCHMARKS / "results").glob("*.json"):
        for row in json.loads(path.read_text())["rows"]:
            for field, value in row.items():
                if guard.is_ratio(field, value):
                    assert guard.direction(path.stem, field) != guard.NEITHER, f"{path.stem}.{field}"


work = cost_model.Work(teacher_image=40e9, teacher_text=2e9, student_image=3e9, student_text=1e9)


def test_a_set_by_hand():
    found = cost_model.cost(
        1_000_000, work, cost_model.Rates(1e12), views=2, captions=1, dim=512, epochs=10, bytes_a_pair=25_000
    )
    assert found.shards_gb == pytest.approx(25)
    assert found.cache_gb == pytest.approx(1e6 * 3 * 512 * 2 / 1e9)
    assert found.cache_hours == pytest.approx(1e6 * 82e9 / 1e12 / 3600)
    assert found.cached_epoch_hours == pytest.approx(1e6 * 12e9 / 1e12 / 3600)
    assert found.live_epoch_hours == pytest.approx(1e6 * 54e9 / 1e12 / 3600)
    assert found.speedup_ratio == pytest.approx(10 * 54 / (82 + 10 * 12))
    assert found.break_even_epochs == 2  # 82 after 42 an epoch


def test_what_was_measured_goes_before_what_is_assumed():
    rates = cost_model.Rates(1e12, cache_images=500.0, cached_pairs=2000.0, live_pairs=400.0)
    found = cost_model.cost(3_600_000, work, rates, views=1, captions=1, dim=512, epochs=2, bytes_a_pair=1)
    hours = (found.cache_hours, found.cached_epoch_hours, found.live_epoch_hours, found.live_hours)
    assert hours == pytest.approx((2.0, 0.5, 2.5, 5.0))


@given(st.integers(1, 64), st.floats(1e9, 1e12), st.floats(0, 1e11))
def test_one_view_has_paid_after_the_first_epoch_and_many_after_as_many(views, image, text):
    some = cost_model.Work(image, text, 1e9, 1e9)
    assert cost_model.break_even(some.cache(1), some.cached, some.live) == 1
    assert cost_model.break_even(some.cache(views), some.cached, some.live) <= views


def test_a_live_teacher_that_costs_nothing_is_never_beaten():
    assert cost_model.break_even(1.0, 2.0, 2.0) is None


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Two figures, one of them not reached."""
    rows = [
        {"path": "peer, 0 workers", "times": 3.0},
        {"path": "peer, 2 workers", "times": 2.0},
        {"path": "ours", "share": 0.5},
    ]
    (tmp_path / "x.json").write_text(json.dumps(result(rows)))
    monkeypatch.setattr(standing, "RESULTS", tmp_path)
    goals = (
        standing.Goal("speed", "the peer", 2.5, "x", {"path": "peer, *"}, "times"),
        standing.Goal("memory", "a & b", 2, "x", {"path": "ours"}, "share", inverse=True),
    )
    monkeypatch.setattr(standing, "GOALS", goals)
    return tmp_path


def test_the_peers_best_run_counts_and_what_is_not_reached_stands_out(measured):
    assert standing.table().splitlines()[2:] == [
        "| speed | the peer | 2.5 × | **2.0 ×** |",
        "| memory | a & b | 2 × | 2.0 × |",
    ]


def test_the_picture_shows_every_figure(measured, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    standing.plot(measured / "speed.svg")
    drawn = ElementTree.parse(measured / "speed.svg").getroot()
    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"speed, against peer", "memory, against a & b", "2"} <= set(texts)


def test_a_figure_that_was_not_measured_is_an_error(measured):
    (measured / "x.json").write_text(json.dumps(result([])))
    with pytest.raises(SystemExit, match=r"x\.json has no row"):
        standing.table()


SCRIPTS = sorted([*BENCHMARKS.glob("*.py"), *BENCHMARKS.with_name("tools").rglob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_what_a_script_imports_of_cliprd_is_there(script):
    """Most scripts run for minutes, so a moved name would be noticed only at the next measurement."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("cliprd", "pipelines", "tests"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
