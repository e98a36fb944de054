"""What is printed while real workflows grow, and of waits; without a server."""

import base64
import gzip
import json
from collections import defaultdict

import pytest

from cliprd.kubeflow.outline import Outline
from cliprd.kubeflow.reasons import Reason
from cliprd.kubeflow.run_steps import run_steps
from cliprd.kubeflow.submit import Submission
from cliprd.kubeflow.watch import Printer
from cliprd.kubeflow.workflow import read_workflow
from cliprd.params import Kubernetes
from tests.kubeflow.argo import Argo, recorded
from tests.kubeflow.paths import IMAGE, ROOT


@pytest.fixture(scope="module")
def outlines():
    texts = {name: (ROOT / "pipelines" / "compiled" / f"{name}.yaml").read_text() for name in ("distill", "ablation")}
    return {name: Outline(Submission(name, text, {}, IMAGE, Kubernetes())) for name, text in texts.items()}


@pytest.fixture
def printer(outlines):
    def made(name="distill", clock=lambda: 0.0):
        return Printer(outlines[name], lambda step, pod: Reason("why"), stuck=120.0, clock=clock)

    return made


def as_it_was(manifest: dict, now: str) -> dict:
    """A finished workflow at an earlier time: nodes that had begun, those that were not over as running."""
    status = manifest["status"]
    packed = status.get("compressedNodes")
    nodes = json.loads(gzip.decompress(base64.b64decode(packed))) if packed else status["nodes"]
    begun = {key: dict(node) for key, node in nodes.items() if node["startedAt"] <= now}
    for node in begun.values():
        node["children"] = [child for child in node.get("children", []) if child in begun]
        if node["finishedAt"] > now:
            node.update(phase="Running", finishedAt=None)
    return {**manifest, "status": {"phase": "Running", "nodes": begun}}


def times(manifest: dict) -> list[str]:
    packed = manifest["status"].get("compressedNodes")
    nodes = json.loads(gzip.decompress(base64.b64decode(packed))) if packed else manifest["status"]["nodes"]
    return sorted({node[key] for node in nodes.values() for key in ("startedAt", "finishedAt")})


@pytest.mark.parametrize(
    ("name", "count", "ends"),
    [("distill-succeeded", 10, {"succeeded"}), ("distill-all-cached", 10, {"succeeded", "cached"}),
     ("ablation-succeeded-compressed", 12, {"succeeded"})],
)  # fmt: skip
def test_every_step_of_a_growing_workflow_goes_forward(outlines, printer, capsys, name, count, ends):
    manifest, pipeline = recorded(name), name.partition("-")[0]
    watch = printer(pipeline)
    for now in times(manifest):
        watch.show(run_steps(read_workflow(as_it_was(manifest, now)), outlines[pipeline]), "kubeflow")
    lines: dict[str, list[str]] = defaultdict(list)
    for line in capsys.readouterr().out.splitlines():
        label, _, state = line.partition(": ")
        lines[label].append(state.partition(" ")[0])
    order = ["starting", "pending", "running", "succeeded", "cached"]
    assert len(lines) == count
    for states in lines.values():
        assert states == sorted(set(states), key=order.index)
        assert states[0] == "starting"
        assert states[-1] in ends
    assert {states[-1] for states in lines.values()} == ends


def test_a_wait_is_printed_when_it_has_doubled(outlines, printer, capsys):
    now = 0.0
    watch = printer(clock=lambda: now)
    built = Argo()
    built.root.task("plan", "Pending", retries=False)
    steps = run_steps(read_workflow(built.manifest()), outlines["distill"])
    for now in (0.0, 60.0, 119.0, 120.0, 130.0, 239.0, 240.0, 300.0, 480.0):  # noqa: B007 (the clock reads it)
        watch.show(steps, "team-a")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2][:20] for line in lines] == [
        "pending", "pending for 2 min: c", "pending for 4 min: c", "pending for 8 min: c",
    ]  # fmt: skip
    assert "kubectl -n team-a describe pod" in watch.last_line


def test_a_step_whose_pod_argo_has_not_made_is_not_about_images(outlines, printer, capsys):
    now = 0.0
    watch = printer(clock=lambda: now)
    built = Argo()
    built.root.task("plan", "Pending", retries=False)
    manifest = built.manifest()
    nodes = manifest["status"]["nodes"]
    manifest["status"]["nodes"] = {
        key: node for key, node in nodes.items() if not node["displayName"].startswith("exec")
    }
    steps = run_steps(read_workflow(manifest), outlines["distill"])
    for now in (0.0, 121.0):  # noqa: B007 (the clock reads it)
        watch.show(steps, "kubeflow")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "for 2 min" in line]
    assert line == (
        "plan: pending for 2 min: is Argo's workflow-controller running, or is its limit of pods at once reached?"
    )
