"""Stage `compare`: reads exactly the grid, refuses what cannot be compared, and writes the same bytes again."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from cliprd import files
from cliprd.artifact import manifest
from cliprd.errors import InputError, ParamsError
from cliprd.params import validate
from cliprd.stages.compare import run
from tests.report import folders

METHODS = ["clip_kd", "clip_rd-exp"]
TASKS = [task for task in folders.tasks() if task.name in ("photos", "captions")]


def params(methods=METHODS, seeds=(0, 1), **compare):
    return validate({"ablation": {"methods": list(methods), "seeds": list(seeds)}, "compare": compare}, where="test")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return folders.write_grid(tmp_path_factory.mktemp("grid"), METHODS, [0, 1], only=TASKS)


@pytest.fixture(scope="module")
def compared(grid, tmp_path_factory):
    output = tmp_path_factory.mktemp("compared") / "reports"
    return run(params(), grid, output), output


@pytest.fixture
def own(grid, tmp_path):
    """A grid that a test may spoil."""
    shutil.copytree(grid["benchmarks"].parent, tmp_path / "own")
    return {name: tmp_path / "own" / path.name for name, path in grid.items()}


def content(output):
    return folders.read(output / "comparison.json")


def rewrite(folder, change):
    """Change a folder's results.json and seal it again."""
    sealed = manifest.read(folder)
    results = folders.read(folder / "results.json")
    change(results)
    files.write_json(folder / "results.json", results)
    manifest.write(folder, stage=sealed.stage, params=sealed.params, inputs=sealed.inputs)


def test_a_training_under_a_second_name_is_no_second_seed(own, tmp_path):
    for kind in own.values():
        shutil.rmtree(kind / "clip_kd-1")
        shutil.copytree(kind / "clip_kd-0", kind / "clip_kd-1")
    with pytest.raises(InputError, match=r"clip_kd-1 has the training clip_kd-0, not clip_kd-1"):
        run(params(), own, tmp_path / "out")


def test_it_writes_json_table_and_page(compared):
    sealed, output = compared
    assert set(sealed.files) == {"comparison.json", "comparison.md", "index.html"} | {
        f"metrics/{name}.json" for name in ("teacher", *METHODS)
    }
    assert sealed.facts["runs"] == 5
    headline = content(output)["protocols"]["standard"]["headline"]
    assert dict(sealed.facts) == {"protocol": "standard", "runs": 5, "verdict": headline}  # the terminal's line
    assert manifest.verify(output, stage="compare") == sealed
    assert "| **teacher** |" in (output / "comparison.md").read_text(encoding="utf-8")


def test_scores_are_the_benchmarks_own(compared, grid):
    found = content(compared[1])
    for protocol in ("standard", "paper"):
        for method in METHODS:
            entry = found["protocols"][protocol]["methods"][method]
            for seed in (0, 1):
                tasks = folders.read(grid["benchmarks"] / f"{method}-{seed}" / "results.json")["tasks"]
                photos = tasks["photos"]["protocols"][protocol]["scores"]["acc1"]["value"]
                found_scores = tasks["captions"]["protocols"][protocol]["scores"]
                captions = np.mean([found_scores[f"{way}_r1"]["value"] for way in ("text_to_image", "image_to_text")])
                assert entry["seeds"][str(seed)]["tasks"]["photos"] == pytest.approx(photos, abs=1e-6)
                assert entry["seeds"][str(seed)]["tasks"]["captions"] == pytest.approx(captions, abs=1e-6)
            means = [entry["seeds"][seed]["mean"] for seed in ("0", "1")]
            assert entry["mean"]["value"] == pytest.approx(np.mean(means))
            assert entry["seed_std"] == pytest.approx(np.std(means, ddof=1))
            assert entry["mean"]["low"] < entry["mean"]["value"] < entry["mean"]["high"]


def test_differences_are_paired_to_the_reference(compared, grid):
    block = content(compared[1])["protocols"]["standard"]["methods"]
    assert "difference" not in block["clip_kd"]
    entry = block["clip_rd-exp"]["difference"]
    rows = {
        name: load_file(grid["benchmarks"] / name / "outcomes" / "photos.safetensors")["standard.acc1"]
        for name in ("clip_kd-0", "clip_kd-1", "clip_rd-exp-0", "clip_rd-exp-1")
    }
    gap = np.mean([rows[f"clip_rd-exp-{s}"] - rows[f"clip_kd-{s}"] for s in (0, 1)])
    assert entry["tasks"]["photos"]["value"] == pytest.approx(gap, abs=1e-6)
    assert entry["mean"]["value"] == pytest.approx(
        block["clip_rd-exp"]["mean"]["value"] - block["clip_kd"]["mean"]["value"]
    )
    assert block["clip_rd-exp"]["verdict"] in ("better", "worse", "open")


def test_json_tells_where_it_comes_from(compared, grid):
    found = content(compared[1])
    assert (found["protocol"], found["reference"], found["seeds"]) == ("standard", "clip_kd", [0, 1])
    assert (found["confidence"], found["resamples"], found["bootstrap_seed"]) == (0.95, 500, 0)
    assert found["interval_covers"] == "examples and seeds"
    assert found["tasks"]["photos"]["examples"] == 299
    assert found["tasks"]["captions"]["metric"] == "mean_r1"
    for run_name, fingerprint in found["inputs"]["benchmarks"].items():
        assert fingerprint == manifest.read(grid["benchmarks"] / run_name).fingerprint
    assert set(found["inputs"]["students"]) == {f"{m}-{s}" for m in METHODS for s in (0, 1)}
    assert found["fidelity"]["clip_kd"]["mean"]["image_rank"] > 0
    assert found["costs"]["teacher"]["parameters"] == 27_400_000


def test_equal_inputs_give_equal_bytes_and_a_second_call_does_nothing(compared, grid, tmp_path):
    sealed, output = compared
    again = run(params(), grid, tmp_path / "again")
    assert again.files == sealed.files
    before = (output / "index.html").stat().st_mtime_ns
    assert run(params(), grid, output) == sealed
    assert (output / "index.html").stat().st_mtime_ns == before


def test_new_timings_renew_the_page_and_nothing_else(compared, own, tmp_path):
    speed = own["benchmarks"] / "clip_kd-0" / "volatile" / "speed.json"
    files.write_json(speed, {**folders.read(speed), "image": {"latency_ms": {"median": 1.0}, "per_second": 999.0}})
    sealed, _ = compared
    renewed = run(params(), own, tmp_path / "reports")
    changed = {name for name in sealed.files if renewed.files[name] != sealed.files[name]}
    assert changed == {"index.html"}
    assert "999" in (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")


def test_it_does_without_timings(own, tmp_path):
    for folder in [*own["benchmarks"].iterdir(), *own["students"].iterdir()]:
        shutil.rmtree(folder / "volatile")
    run(params(), own, tmp_path / "reports")
    text = (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")
    assert "Score against size" in text
    assert "Score against speed" not in text


def test_damaged_timings_are_named_and_change_no_score(compared, own, tmp_path, capfd):
    benchmarks, students = own["benchmarks"], own["students"]
    (benchmarks / "teacher/volatile/speed.json").write_bytes(b"\x00")
    (benchmarks / "clip_kd-0/volatile/speed.json").write_text('{"image": {"per_second": 1e999}}')
    (benchmarks / "clip_kd-1/volatile/speed.json").unlink()
    (benchmarks / "clip_kd-1/volatile/speed.json").mkdir()
    (students / "clip_kd-0/volatile/throughput.csv").write_text("step,images_per_second,data_wait\n2,nan,0\n")
    sealed, _ = compared
    again = run(params(), own, tmp_path / "reports")
    changed = {name for name in sealed.files if again.files[name] != sealed.files[name]}
    assert changed <= {"index.html"}
    errors = [line for line in capfd.readouterr().err.splitlines() if "damaged" in line]
    for name in ("teacher/volatile/speed.json", "clip_kd-0/volatile/speed.json", "clip_kd-0/volatile/throughput.csv"):
        assert [line for line in errors if name in line and line.startswith("cliprd: warning: ")], name


def test_runs_outside_the_grid_are_not_looked_at(own, tmp_path):
    (own["benchmarks"] / "baseline-7").mkdir()
    (own["benchmarks"] / "clip_rd-exp-1" / "results.json").write_text("spoilt")
    sealed = run(params(seeds=[0]), own, tmp_path / "reports")
    assert sealed.facts["runs"] == 3
    assert content(tmp_path / "reports")["interval_covers"] == "examples"


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("benchmarks/teacher", "cliprd benchmark --model work/teacher"),
        ("students/clip_rd-exp-1", "cliprd distill .*--method clip_rd-exp --seed 1"),
        ("benchmarks/clip_kd-0", "cliprd benchmark --model .*clip_kd-0"),
    ],
)
def test_a_missing_run_is_named_with_the_command_that_makes_it(own, tmp_path, gone, told):
    kind, name = gone.split("/")
    shutil.rmtree(own[kind] / name)
    with pytest.raises(InputError, match=told) as caught:
        run(params(), own, tmp_path / "reports")
    assert name in caught.value.problem
    assert not (tmp_path / "reports").exists()


def test_a_run_that_was_never_finished_is_refused(own, tmp_path):
    (own["students"] / "clip_kd-1" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"clip_kd-1 has no manifest\.json"):
        run(params(), own, tmp_path / "reports")


def test_a_flipped_byte_is_named(own, tmp_path):
    path = own["benchmarks"] / "clip_kd-1" / "outcomes" / "photos.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"clip_kd-1/outcomes/photos\.safetensors is damaged"):
        run(params(), own, tmp_path / "reports")


def test_a_benchmark_of_an_older_student_is_refused(own, tmp_path):
    shutil.rmtree(own["students"] / "clip_kd-1")
    folders.write_student(own["students"] / "clip_kd-1", "clip_kd", 1, steps=200)
    with pytest.raises(InputError, match="of another student"):
        run(params(), own, tmp_path / "reports")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: r["tasks"].pop("photos"), "other tasks"),
        (lambda r: r["tasks"]["photos"].update(fingerprint="0" * 64), "other data"),
        (lambda r: r["tasks"]["photos"]["protocols"].pop("paper"), "other protocols"),
        (lambda r: r["bootstrap"].update(resamples=9), "other bootstrap settings"),
    ],
)
def test_what_was_benchmarked_differently_is_not_compared(own, tmp_path, change, told):
    rewrite(own["benchmarks"] / "clip_rd-exp-1", change)
    with pytest.raises(InputError, match=f"clip_rd-exp-1 was benchmarked with {told}"):
        run(params(), own, tmp_path / "reports")


def test_the_reference_must_be_one_of_the_methods(grid, tmp_path):
    with pytest.raises(ParamsError, match=r"compare\.reference.*clip_kd, clip_rd-exp"):
        run(params(reference="vrd"), grid, tmp_path / "reports")
    run(params(reference="clip_rd"), grid, tmp_path / "reports")  # the one arm of that method, whatever its suffix
    assert content(tmp_path / "reports")["reference"] == "clip_rd-exp"


def test_a_protocol_that_was_not_benchmarked_is_refused(own, tmp_path):
    for folder in own["benchmarks"].iterdir():
        rewrite(folder, lambda r: [task["protocols"].pop("paper") for task in r["tasks"].values()])
    with pytest.raises(ParamsError, match=r"compare\.protocol"):
        run(params(protocol="paper"), own, tmp_path / "reports")
    run(params(), own, tmp_path / "single")
    assert list(content(tmp_path / "single")["protocols"]) == ["standard"]


def test_the_preferred_protocol_comes_first(grid, tmp_path):
    run(params(protocol="paper"), grid, tmp_path / "reports")
    assert content(tmp_path / "reports")["protocol"] == "paper"
    assert "protocol `paper`" in (tmp_path / "reports" / "comparison.md").read_text(encoding="utf-8")
    text = (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")
    assert text.index('id="protocol-paper"') < text.index('id="protocol-standard"')


def test_comparison_json_is_plain_json(compared):
    text = (compared[1] / "comparison.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
