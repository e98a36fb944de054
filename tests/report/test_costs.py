"""What models cost: one speed an architecture, of all its runs' timings; nothing of another machine."""

import json
import re

import pytest

from cliprd import files
from cliprd.artifact import manifest
from cliprd.params import validate
from cliprd.report import blocks, palette
from cliprd.report.comparison import build
from cliprd.report.costs import device, gather_costs, measured
from cliprd.report.gather import gather
from cliprd.report.page import render
from cliprd.report.runs import open_grid
from cliprd.stages.compare import run
from tests.report import folders

METHODS = ["baseline", "clip_kd", "clip_rd-exp"]


@pytest.fixture
def root(tmp_path):
    folders.write_grid(tmp_path, METHODS, [0, 1], only=folders.tasks()[:1])
    return tmp_path


def opened(root):
    return open_grid(METHODS, [0, 1], root / "benchmark", root / "students")


def change(root, name, edit):
    path = root / "benchmark" / name / "volatile" / "speed.json"
    speed = json.loads(path.read_text())
    edit(speed)
    path.write_text(json.dumps(speed))


def test_students_of_one_architecture_share_one_speed_of_all_their_rounds(root):
    grid = opened(root)
    costs = gather_costs(grid)
    timed = [json.loads(run.volatile("speed.json").read_text())["image"]["rounds"] for run in grid.runs[1:]]
    paces = [pace for rounds in timed for pace in rounds["per_second"]]
    assert {costs[method].images_per_second for method in METHODS} == {measured(paces)}
    assert costs["baseline"].images_per_second.count == 3 * 6
    assert costs["teacher"].images_per_second.count == 3
    assert len({costs[method].architecture for method in METHODS}) == 1 != costs["teacher"].architecture


def test_another_architecture_has_a_speed_of_its_own(root):
    folder = root / "benchmark" / "clip_kd-0"
    for seed in (0, 1):
        folder = root / "benchmark" / f"clip_kd-{seed}"
        results = folders.read(folder / "results.json")
        results["cost"] = {**results["cost"], "parameters": 9_999_999}
        sealed = manifest.read(folder)
        files.write_json(folder / "results.json", results)
        manifest.write(folder, stage=sealed.stage, params=sealed.params, inputs=sealed.inputs)
    costs = gather_costs(opened(root))
    assert costs["baseline"].architecture == costs["clip_rd-exp"].architecture != costs["clip_kd"].architecture
    assert costs["clip_kd"].images_per_second.count == 6


def test_timings_of_another_machine_are_left_out(root):
    change(root, "clip_kd-0", lambda speed: speed.update(device="a far faster one"))
    change(root, "clip_kd-1", lambda speed: speed.update(threads=64))
    assert gather_costs(opened(root))["clip_kd"].images_per_second.count == 3 * 4
    assert device(opened(root)) == "Example CPU @ 2.10GHz, 2 threads, fp32"


def test_old_and_missing_timings_are_accepted(root):
    for name in ("teacher", *(f"{method}-{seed}" for method in METHODS for seed in (0, 1))):
        change(root, name, lambda speed: [speed[tower].pop("rounds", None) for tower in ("image", "text")])
    assert gather_costs(opened(root))["clip_kd"].images_per_second.count == 6
    for path in root.rglob("speed.json"):
        path.unlink()
    for path in root.rglob("throughput.csv"):
        path.unlink()
    costs = gather_costs(opened(root))
    assert costs["clip_kd"].images_per_second is None is costs["clip_kd"].training_seconds
    assert device(opened(root)) == ""


def test_training_time_and_file_sizes_are_per_student(root):
    cost = gather_costs(opened(root))["clip_kd"]
    assert cost.training_seconds.value == pytest.approx(100 * (10 / 180 + 10 / 490.5 + 10 / 495.1))
    assert cost.training_images_per_second.value == 490.5
    assert (cost.weights_bytes, cost.onnx_bytes) == (29_950, 30_000)


def test_the_page_has_one_mark_an_architecture_and_no_exponents(root):
    params = validate({"ablation": {"methods": METHODS, "seeds": [0, 1]}, "tracking": {"uri": ""}}, where="test")
    grid = opened(root)
    page = gather(grid, build(grid, reference="clip_kd", protocol="standard"), {})
    for _, chart in blocks.speed(page, "standard", palette.styles(METHODS)):
        assert str(chart).count('class="mark') == 2
        assert ", best of 3" in str(chart)
    text = render(page)
    assert "e+0" not in text
    assert re.search(r"<td rowspan=.3.>2\d,\d\d\d<span", text)
    assert '<td rowspan="3">30 kB</td>' in text
    before = run(params, {"benchmarks": root / "benchmark", "students": root / "students"}, root / "a")
    change(root, "clip_kd-0", lambda speed: speed["image"].update(per_second=1.0))
    after = run(params, {"benchmarks": root / "benchmark", "students": root / "students"}, root / "b")
    for name in ("comparison.json", "comparison.md"):
        assert before.files[name] == after.files[name], "timings are in no result"
