"""The compiled YAML: fresh, the same every time, and with all that was asked for in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cliprd import cli, params
from cliprd.errors import ParamsError
from cliprd.kubeflow.argo import compile_argo
from cliprd.kubeflow.compile import NAMES, compile_pipeline
from cliprd.kubeflow.image import CONTENT, WITHOUT_TORCH, check_image, choose_image, content_tag
from cliprd.params.kubernetes import STEPS
from pipelines.steps import FUNCTIONS

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/cliprd@sha256:" + "0" * 64


def compiled(name: str, *overrides: str) -> list[dict]:
    tree = params.load(ROOT / "params.yaml", overrides)
    return list(yaml.load_all(compile_pipeline(name, tree, IMAGE), yaml.CSafeLoader))


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_yaml_is_fresh(name):
    committed = (ROOT / "pipelines" / "compiled" / f"{name}.yaml").read_text(encoding="utf-8")
    fresh = compile_pipeline(name, params.load(ROOT / "params.yaml"), content_tag("cpu"))
    assert committed == fresh, "run `make pipelines`"


def test_compiling_gives_the_same_text_in_every_process():
    command = [sys.executable, "-m", "cliprd.cli", "pipeline", "compile", "ablation"]
    first, second = (
        subprocess.run(
            command, cwd=ROOT, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    )
    assert first == second


@pytest.mark.parametrize("name", NAMES)
def test_every_step_runs_in_the_image_and_installs_nothing(name):
    spec = compiled(name)[0]
    for executor in spec["deploymentSpec"]["executors"].values():
        assert executor["container"]["image"] == IMAGE
        assert "pip install" not in str(executor)


@pytest.mark.parametrize("name", NAMES)
def test_steps_without_torch_run_in_the_slim_image_where_there_is_one(name):
    slim = "registry.example/cliprd@sha256:" + "1" * 64
    executors = compiled(name, f"kubernetes.slim_image={slim}")[0]["deploymentSpec"]["executors"]
    steps = {
        key.removeprefix("exec-").replace("-", "_"): executor["container"]["image"]
        for key, executor in executors.items()
    }
    in_slim = {step for step, image in steps.items() if image == slim}
    assert in_slim == steps.keys() & {*WITHOUT_TORCH}
    assert {"prepare"} < in_slim
    tree = params.load(ROOT / "params.yaml", [f"kubernetes.slim_image={slim}", "kubernetes.store=s3://b/work"])
    workflow = yaml.safe_load(compile_argo(name, tree, IMAGE))
    images = {step["name"]: step["container"]["image"] for step in workflow["spec"]["templates"] if "container" in step}
    assert {step for step, image in images.items() if image == slim} == images.keys() & {*WITHOUT_TORCH}


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_described(name):
    spec = compiled(name)[0]
    for component in [spec["root"], *(c for c in spec["components"].values() if "executorLabel" in c)]:
        for kind in ("inputDefinitions", "outputDefinitions"):
            for group in component.get(kind, {}).values():
                for field, definition in group.items():
                    assert definition.get("description"), field


def steps(spec: dict) -> dict[str, dict]:
    """Step → its task, wherever in the loops and branches it stands."""
    dags = [spec["root"], *(part for part in spec["components"].values() if "dag" in part)]
    tasks = [task for part in dags for task in part["dag"]["tasks"].values()]
    return {
        task["taskInfo"]["name"]: task
        for task in tasks
        if "executorLabel" in spec["components"][task["componentRef"]["name"]]
    }


SHARED = {"plan", "prepare", "teacher", "cache", "merge", "distill", "benchmark-teacher", "benchmark"}


@pytest.mark.parametrize(
    ("name", "more"),
    [("distill", {"report"}), ("ablation", {"compare"}), ("retrain", {"gate", "promote", "refuse", "record"})],
)
def test_the_steps_of_a_pipeline(name, more):
    assert set(steps(compiled(name)[0])) == SHARED | more


@pytest.mark.parametrize(
    ("name", "nodes", "own"),
    [
        ("distill", 1, {"distill", "benchmark-report"}),
        ("distill", 2, {"distill-nodes", "benchmark-report"}),
        ("ablation", 1, {"distill-benchmark", "compare-stored"}),
        ("ablation", 2, {"distill-nodes", "benchmark", "compare-stored"}),
        ("retrain", 1, {"distill-benchmark", "gate", "promote", "refuse", "record"}),
    ],
)
def test_the_steps_of_a_pipeline_that_joins_them(name, nodes, own):
    spec = compiled(name, "kubernetes.fuse=true", "kubernetes.store=s3://b/p", f"kubernetes.nodes={nodes}")[0]
    assert set(steps(spec)) == {"plan", "prepare-teacher", "cache", "benchmark-teacher"} | own
    assert "cache_parts" not in spec["root"]["inputDefinitions"]["parameters"]  # it would have no effect


def test_a_joined_step_asks_for_what_its_one_named_part_does():
    large, small = "kubernetes.steps.distill={cpu: '8'}", "kubernetes.steps.benchmark={cpu: '1'}"
    executors = compiled("ablation", "kubernetes.fuse=true", large)[0]["deploymentSpec"]["executors"]
    assert executors["exec-distill-benchmark"]["container"]["resources"]["resourceCpuLimit"] == "8"
    assert executors["exec-cache"]["container"]["resources"]["resourceCpuLimit"] == "2"  # of kubernetes.default
    own = "kubernetes.steps.distill_benchmark={cpu: '4'}"
    executors = compiled("ablation", "kubernetes.fuse=true", large, small, own)[0]["deploymentSpec"]["executors"]
    assert executors["exec-distill-benchmark"]["container"]["resources"]["resourceCpuLimit"] == "4"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["kubernetes.steps.distill={cpu: '8'}", "kubernetes.steps.benchmark={cpu: '1'}"], "name distill_benchmark"),
        (["kubernetes.cache_parts=2"], "cache_parts = 2 and fuse"),
    ],
)
def test_steps_that_cannot_be_joined_are_refused(overrides, words):
    with pytest.raises(ParamsError, match=words):
        params.load(ROOT / "params.yaml", ["kubernetes.fuse=true", *overrides])


def test_nothing_is_promoted_unless_the_gate_says_so_and_the_end_is_always_recorded():
    spec = compiled("retrain")[0]
    (branch,) = (part for part in spec["components"].values() if "promote" in part.get("dag", {}).get("tasks", {}))
    assert set(branch["dag"]["tasks"]) == {"promote"}
    (other,) = (part for part in spec["components"].values() if "refuse" in part.get("dag", {}).get("tasks", {}))
    assert set(other["dag"]["tasks"]) == {"refuse"}
    (name,) = (name for name, part in spec["components"].items() if part is branch)
    guarded = [
        task
        for part in spec["components"].values()
        for task in part.get("dag", {}).get("tasks", {}).values()
        if task["componentRef"]["name"] == name
    ]
    assert [task["triggerPolicy"]["condition"] for task in guarded] == [
        "inputs.parameter_values['pipelinechannel--gate-Output'] == true"
    ]
    assert spec["root"]["dag"]["tasks"]["record"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def test_the_cache_is_embedded_by_a_fan_out_that_prepare_has_counted():
    spec = compiled("distill", "kubernetes.parallelism=3", "kubernetes.cache_parts=8")[0]
    (loop,) = (task for task in spec["root"]["dag"]["tasks"].values() if "parameterIterator" in task)
    assert loop["iteratorPolicy"] == {"parallelismLimit": 3}
    items = loop["inputs"]["parameters"][loop["parameterIterator"]["items"]["inputParameter"]]
    assert items == {"taskOutputParameter": {"outputParameterKey": "Output", "producerTask": "prepare"}}
    parts = steps(spec)["prepare"]["inputs"]["parameters"]["parts"]
    assert parts == {"componentInputParameter": "cache_parts"}
    assert spec["root"]["inputDefinitions"]["parameters"]["cache_parts"]["defaultValue"] == 8.0


def test_new_data_behind_an_old_name_is_new_to_kubeflows_cache():
    tasks = steps(compiled("distill")[0])
    for step, field, output in (("prepare", "source", "source"), ("benchmark", "tasks", "tasks")):
        given = tasks[step]["inputs"]["parameters"][field]
        assert given == {"taskOutputParameter": {"outputParameterKey": output, "producerTask": "plan"}}


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_cached_and_retried(name):
    spec = compiled(name, "kubernetes.retries=3", "kubernetes.backoff=45s")[0]
    tasks = steps(spec)
    for step, task in tasks.items():
        cached = step not in {"plan", "gate", "promote", "refuse", "record"}  # these look at the world, or change it
        assert task["cachingOptions"] == ({"enableCache": True} if cached else {})
    retried = {step: task["retryPolicy"] for step, task in tasks.items() if "retryPolicy" in task}
    assert set(retried) == set(tasks) - {"plan"}  # which fails at once, of wrong parameters
    for policy in retried.values():
        assert (policy["maxRetryCount"], policy["backoffDuration"]) == (3, "45s")


def test_resources_placement_and_secrets_stand_in_the_yaml():
    spec, platform = compiled(
        "distill",
        "kubernetes.default={cpu: '2', memory: 4Gi}",
        "kubernetes.steps.distill={cpu: '8', memory: 32Gi, accelerator: nvidia.com/gpu, accelerators: 4,"
        " node_selector: {gpu: h100}, tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}], shared_memory: 8Gi,"
        " scratch: 50Gi, timeout: 86400}",
        "kubernetes.secrets=[{name: s3, keys: {secret: AWS_SECRET_ACCESS_KEY}}]",
        "kubernetes.environment={AWS_ENDPOINT_URL: 'http://s3.example:9000'}",
        "kubernetes.volumes=[{claim: pictures, path: /data}]",
        "kubernetes.image_pull_secrets=[registry]",
    )
    executors = spec["deploymentSpec"]["executors"]
    asked = executors["exec-distill"]["container"]["resources"]
    assert asked["resourceCpuLimit"] == asked["resourceCpuRequest"] == "8"
    assert asked["resourceMemoryLimit"] == asked["resourceMemoryRequest"] == "32Gi"
    accelerator = {"resourceType": "nvidia.com/gpu", "resourceCount": "4", "type": "nvidia.com/gpu", "count": "4"}
    assert asked["accelerator"] == accelerator  # the last two: names that older backends read
    assert executors["exec-cache"]["container"]["resources"]["resourceMemoryLimit"] == "4Gi"
    assert "accelerator" not in executors["exec-cache"]["container"]["resources"]
    on_cluster = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    gpu = on_cluster["exec-distill"]
    assert gpu["nodeSelector"] == {"labels": {"gpu": "h100"}}
    assert gpu["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert gpu["emptyDirMounts"] == [
        {"mountPath": "/tmp", "sizeLimit": "50Gi", "volumeName": "scratch"},
        {"medium": "Memory", "mountPath": "/dev/shm", "sizeLimit": "8Gi", "volumeName": "shm"},
    ]
    assert gpu["activeDeadlineSeconds"] == "86400"
    for step in ("exec-prepare", "exec-report"):
        assert on_cluster[step]["emptyDirMounts"] == [{"mountPath": "/tmp", "volumeName": "scratch"}]
        assert on_cluster[step]["securityContext"] == {"runAsNonRoot": True}
        assert on_cluster[step]["pvcMount"][0] == {
            "constant": "pictures", "mountPath": "/data", "pvcNameParameter": {"runtimeValue": {"constant": "pictures"}}
        }  # fmt: skip
        assert [secret["secretName"] for secret in on_cluster[step]["imagePullSecret"]] == ["registry"]
        assert executors[step]["container"]["env"] == [{"name": "AWS_ENDPOINT_URL", "value": "http://s3.example:9000"}]
        (secret,) = on_cluster[step]["secretAsEnv"]
        assert secret["keyToEnv"] == [{"envVar": "AWS_SECRET_ACCESS_KEY", "secretKey": "secret"}]
        assert "nodeSelector" not in on_cluster[step]


AFFINITY = (
    "[{match: [{key: gpu, values: [h100, h200]}, {key: spot, operator: DoesNotExist}]},"
    " {weight: 10, match: [{key: age, operator: Lt, values: ['3']}]}]"
)


@pytest.mark.parametrize("name", NAMES)
def test_kueues_labels_are_on_every_steps_pod(name):
    queued = compiled(name, "kubernetes.queue=team-a", "kubernetes.priority_class=high")
    for executor in queued[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        assert executor["podMetadata"] == {
            "labels": {"kueue.x-k8s.io/queue-name": "team-a", "kueue.x-k8s.io/priority-class": "high"}
        }
    assert "kueue" not in str(compiled(name))
    assert "priority-class" not in str(compiled(name, "kubernetes.queue=team-a"))


def test_nodes_are_required_and_preferred():
    _, platform = compiled("distill", f"kubernetes.steps.distill={{node_affinity: {AFFINITY}}}")
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-distill"]["nodeAffinity"] == [
        {
            "matchExpressions": [
                {"key": "gpu", "operator": "In", "values": ["h100", "h200"]},
                {"key": "spot", "operator": "DoesNotExist"},
            ]
        },
        {"weight": 10, "matchExpressions": [{"key": "age", "operator": "Lt", "values": ["3"]}]},
    ]
    assert "nodeAffinity" not in executors["exec-prepare"]


@pytest.mark.parametrize("name", NAMES)
def test_how_long_a_run_that_has_ended_is_kept(name):
    _, platform = compiled(name, "kubernetes.ttl_seconds=600")
    assert platform["platforms"]["kubernetes"]["pipelineConfig"] == {"resourceTtlOnCompletion": 600}
    assert "pipelineConfig" not in str(compiled(name))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("kubernetes.priority_class=high", "is Kueue's and needs `queue`"),
        ("kubernetes.queue=Team A", "kubernetes.queue"),
        ("kubernetes.queue=" + "a" * 64, "kubernetes.queue"),
        ("kubernetes.ttl_seconds=59", "kubernetes.ttl_seconds"),
        ("kubernetes.ttl_seconds=2147483648", "kubernetes.ttl_seconds"),
        ("kubernetes.default={node_affinity: [{match: []}]}", "node_affinity"),
        ("kubernetes.default={node_affinity: [{match: [{key: gpu}]}]}", "takes at least one value"),
        ("kubernetes.default={node_affinity: [{match: [{key: a, operator: Exists, values: [b]}]}]}", "takes no values"),
        ("kubernetes.default={node_affinity: [{match: [{key: a, operator: Gt, values: [b]}]}]}", "one whole number"),
        ("kubernetes.default={node_affinity: [{weight: 101, match: [{key: a, values: [b]}]}]}", "weight"),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_here(override, words):
    with pytest.raises(ParamsError) as error:
        params.load(ROOT / "params.yaml", [override])
    assert words in str(error.value)


def test_a_sections_of_params_are_the_defaults():
    spec = compiled("ablation", "distill.epochs=7", "ablation.seeds=[3,4]", "kubernetes.parallelism=2")[0]
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["distill"]["defaultValue"]["epochs"] == 7
    assert [run["seed"] for run in inputs["runs"]["defaultValue"]] == [3, 4] * 4
    loops = [task for task in spec["root"]["dag"]["tasks"].values() if "parameterIterator" in task]
    assert [loop["iteratorPolicy"] for loop in loops] == [{"parallelismLimit": 2}] * 2  # cache, students


def test_the_steps_that_params_knows_are_those_there_are():
    assert set(STEPS) == {function.__name__ for function in FUNCTIONS}
    with pytest.raises(ParamsError, match=r"no step 'distil'"):
        params.load(ROOT / "params.yaml", ["kubernetes.steps.distil={cpu: '1'}"])


@pytest.mark.parametrize("image", ["cliprd", "cliprd:latest", "cliprd:1.0", "cliprd:cpu", "a@sha256:00", "r:5000/c"])
def test_a_name_that_can_move_is_refused(image):
    with pytest.raises(ParamsError, match="make images"):
        check_image(image)
    assert check_image(image, allow_mutable=True) == image


def test_a_name_that_says_its_content_is_taken(tmp_path):
    assert check_image(IMAGE) == IMAGE
    assert check_image(content_tag("cuda")).startswith("cliprd:cuda-")


def test_the_slim_image_is_none_for_all_steps_and_its_name_may_not_move_either():
    plain, moving = (
        params.load(ROOT / "params.yaml", [f"kubernetes.slim_image={name}"]).kubernetes for name in ("''", "r/c:slim")
    )
    with pytest.raises(ParamsError, match=r"has no torch, which most steps need\. Name target cpu or cuda"):
        choose_image(content_tag("slim"), plain)
    with pytest.raises(ParamsError, match=r"kubernetes\.slim_image = r/c:slim: this name can come to mean another"):
        choose_image(None, moving)
    assert choose_image(None, moving, allow_mutable=True) == content_tag("cpu")


def test_the_locks_of_the_images_divide_what_is_locked():
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))

    everything, rest, torch = (pins(f"requirements{name}.lock") for name in ("", "-image", "-torch"))
    slim = pins("requirements-slim.lock")
    assert {"torch", "torchvision"} <= torch.keys()
    assert all(re.match("torch|triton$|nvidia-|cuda-", name) for name in torch)
    assert not rest.keys() & torch.keys()
    assert slim.items() <= rest.items()
    assert {**rest, **torch}.items() <= everything.items()
    assert not {"torch", "torchvision", "open-clip-torch", "timm", "onnxruntime", "transformers"} & slim.keys()


def test_steps_on_gpus_get_the_image_that_sees_them():
    asked = "kubernetes.steps.distill={accelerator: nvidia.com/gpu, accelerators: 2}"
    plain, gpu = (params.load(ROOT / "params.yaml", extra).kubernetes for extra in ([], [asked]))
    assert choose_image(None, plain) == content_tag("cpu")
    assert choose_image(None, gpu) == content_tag("cuda")
    assert choose_image(IMAGE, gpu) == IMAGE
    with pytest.raises(ParamsError, match=r"hides GPUs, and kubernetes.steps.distill asks"):
        choose_image("registry.example/" + content_tag("cpu"), gpu)


def test_the_tag_changes_with_the_content(tmp_path):
    for name in (*CONTENT[:-2], "src/a.py", "data/demo/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    first = content_tag("cpu", tmp_path)
    (tmp_path / "src" / "__pycache__").mkdir()
    (tmp_path / "src" / "__pycache__" / "a.pyc").write_text("x")
    assert content_tag("cpu", tmp_path) == first
    (tmp_path / "src" / "a.py").write_text("y")
    assert content_tag("cpu", tmp_path) != first


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "sqlite:///x.db",
            "cliprd: not tracked: pods cannot use tracking.uri = sqlite:///x.db, only an http(s) address\n",
        ),
        ("postgresql://me:secret@db/x", "tracking.uri = postgresql://…@db/x, only"),
        ("http://mlflow:5000", ""),
        ("", ""),
    ],
)
def test_an_address_that_pods_cannot_use_is_dropped_aloud(uri, said, tmp_path, capsys):
    output = tmp_path / "x.yaml"
    command = ["pipeline", "compile", "distill", "--params", str(ROOT / "params.yaml"), "--output", str(output)]
    assert cli.main([*command, "--set", f"tracking.uri={uri}"]) == 0
    error = capsys.readouterr().err
    assert said in error if said else error == ""
    assert "secret" not in error + output.read_text(encoding="utf-8")
