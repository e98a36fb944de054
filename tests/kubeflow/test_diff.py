"""`cliprd pipeline diff`: nothing is said where nothing changed, and what changed in a person's words."""

import copy

import pytest

from cliprd import params
from cliprd.kubeflow.compile import compile_pipeline
from cliprd.kubeflow.diff import changes, image_to_compare
from cliprd.kubeflow.image import content_tag
from cliprd.kubeflow.versions import documents
from tests.kubeflow.paths import IMAGE, ROOT

OTHER = "registry.example/cliprd@sha256:" + "1" * 64
GPU = (
    "kubernetes.steps.distill={cpu: '8', accelerator: nvidia.com/gpu, accelerators: 4, node_selector: {gpu: h100},"
    " tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}], shared_memory: 8Gi}"
)


def compiled(*overrides: str, name: str = "distill", image: str = IMAGE):
    return documents(compile_pipeline(name, params.load(ROOT / "params.yaml", overrides), image))


@pytest.mark.parametrize("name", ["distill", "ablation"])
def test_the_same_is_the_same(server, cliprd, name):
    cliprd("submit", name, "--host", server.host, "--set", GPU)
    code, out, err = cliprd("diff", name, "--host", server.host, "--set", GPU)
    assert (code, err) == (0, "")
    assert out == f"{name}: as in version {server.versions[0]['name']}\n"


def test_the_newest_version_is_taken(server, cliprd):
    cliprd("submit", "distill", "--host", server.host)
    cliprd("submit", "distill", "--host", server.host, "--set", "distill.epochs=7")
    assert cliprd("diff", "distill", "--host", server.host, "--set", "distill.epochs=7")[0] == 0
    code, out, _ = cliprd("diff", "distill", "--host", server.host, "--set", "distill.epochs=9")
    assert (code, out) == (1, "input distill.epochs: 7 -> 9\n")
    assert len(server.versions) == 2


def test_image_inputs_resources_and_retries_are_told_apart():
    told = changes(compiled(), compiled("distill.chunk_size=64", "kubernetes.retries=3", GPU, image=OTHER))
    for line in (
        f"image: {IMAGE} -> {OTHER}",
        "input distill.chunk_size: added, 64",
        "step distill: resources.resourceCpuLimit: '2' -> '8'",
        "step distill: resources.accelerator.resourceCount: added, '4'",
        "step distill: nodeSelector.labels.gpu: added, 'h100'",
        "step cache (in for-loop-1): retries.maxRetryCount: 2 -> 3",
    ):
        assert line in told, told
    assert sum(IMAGE in line for line in told) == 1


def test_queue_and_time_to_live_are_told():
    told = changes(compiled(), compiled("kubernetes.queue=team-a", "kubernetes.ttl_seconds=600"))
    assert "step distill: podMetadata.labels.kueue.x-k8s.io/queue-name: added, 'team-a'" in told
    assert "pipeline: kubernetes.pipelineConfig.resourceTtlOnCompletion: added, 600" in told


def test_steps_added_removed_and_changed():
    old = compiled()
    new = copy.deepcopy(old)
    tasks = new[0]["root"]["dag"]["tasks"]
    tasks["promote"] = tasks.pop("report")
    new[0]["deploymentSpec"]["executors"]["exec-cache"]["container"]["args"].append("more")
    assert changes(old, new) == [
        "step report: removed",
        "step promote: added",
        "step cache (in for-loop-1): code changed",
    ]


def test_a_loops_width_and_its_grid():
    told = changes(
        compiled(name="ablation"), compiled("kubernetes.parallelism=2", "ablation.seeds=[0,1]", name="ablation")
    )
    assert "step for-loop-1: loop.iteratorPolicy.parallelismLimit: 4 -> 2" in told
    assert any(line.startswith("input runs: [{'method'") for line in told)


@pytest.mark.parametrize("part", ["pipelineInfo", "sdkVersion", "components", "deploymentSpec", "root"])
def test_no_change_is_overlooked(part):
    """Whatever leaf of the spec changes, something is said."""
    old = compiled(GPU, "kubernetes.secrets=[{name: s3, keys: {secret: AWS_SECRET_ACCESS_KEY}}]", name="ablation")
    for document in (0, 1):
        for path in _leaves(old[document], ()):
            if document == 0 and path[0] != part:
                continue
            new = copy.deepcopy(old)
            at = new[document]
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = "changed"
            try:
                told = changes(old, new)
            except (KeyError, TypeError, AttributeError):
                continue  # no pipeline any more: a task without its component
            assert told, path


def _leaves(tree, at):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if isinstance(value, dict | list) and value:
            yield from _leaves(value, (*at, key))
        else:
            yield (*at, key)


def test_an_unknown_pipeline_is_one_line(server, fails):
    line = fails(3, "diff", "distill", "--host", server.host, "--namespace", "team-a")
    assert "has no pipeline cliprd-distill in namespace team-a" in line
    server.pipelines.append({"display_name": "cliprd-distill", "pipeline_id": "1"})
    assert "has no version" in fails(3, "diff", "distill", "--host", server.host)


def test_a_version_that_is_no_pipeline_is_one_line(server, cliprd, fails):
    cliprd("submit", "distill", "--host", server.host)
    server.versions[0]["pipeline_spec"] = {"kind": "Workflow"}
    assert "no pipeline of KFP 2" in fails(3, "diff", "distill", "--host", server.host)


def test_an_image_that_is_not_named_is_the_uploaded_ones(server, cliprd):
    cliprd("submit", "distill", "--host", server.host)
    assert cliprd("diff", "distill", "--host", server.host, image=None)[0] == 0
    code, out, _ = cliprd("diff", "distill", "--host", server.host, image=OTHER)
    assert (code, out) == (1, f"image: {IMAGE} -> {OTHER}\n")


def test_a_content_made_tag_says_whether_the_content_changed():
    here = content_tag("cpu")
    same = f"registry.example/cliprd:cuda-{here[-12:]}"
    assert image_to_compare(compiled(image=same), here) == same
    old = "registry.example/cliprd:cuda-" + "0" * 12
    assert image_to_compare(compiled(image=old), here) == same
    assert image_to_compare(compiled(image=IMAGE), here) == IMAGE
