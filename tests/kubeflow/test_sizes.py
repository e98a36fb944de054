"""What a large ablation costs where Kubeflow and Argo have limits, counted from the compiled pipeline.

Linux takes 131,072 bytes in one argument; a step's inputs are one. etcd takes about 1 MB of a workflow: Argo keeps in
its status every node with its parameters, compressed. What nodes hold is copied from a real run (`workflows/`): with
KFP 2.17's `templateDefaults`, six nodes of a step have its pod's description, and two the component besides.
"""

import base64
import functools
import gzip
import itertools
import json
import random

import pytest
import yaml

from cliprd import params
from cliprd.artifact.manifest import Manifest
from cliprd.errors import ParamsError
from cliprd.kubeflow import checks, ui
from cliprd.kubeflow.compile import compile_pipeline
from tests.kubeflow.paths import IMAGE, ROOT

TRAININGS, TASKS = 100, 40
METHODS = ("clip_rd-exp", "clip_kd", "vrd-raw", "xrd-exp")
STATUS = 1_000_000
RECORDED = 136_374  # of an ablation of two trainings on KFP 2.17.0, whose nodes without inputs are in `workflows/`
SESSION = json.dumps(
    {
        "Provider": "minio",
        "Params": {
            "accessKeyKey": "accesskey", "disableSSL": "true", "endpoint": "seaweedfs.kubeflow:9000",
            "forcePathStyle": "true", "fromEnv": "false", "maxRetries": "5", "region": "us-east-1",
            "secretKeyKey": "secretkey", "secretName": "mlpipeline-minio-artifact",
        },
    }
)  # fmt: skip
dice = random.Random(0)


def digits(length: int) -> str:
    return "".join(dice.choice("0123456789abcdef") for _ in range(length))


def compiled(*overrides: str, trainings: int, store: bool = True) -> dict:
    runs = trainings // len(METHODS) or 1
    grid = [f"ablation.methods=[{','.join(METHODS)}]", f"ablation.seeds={list(range(runs))}"]
    if store:
        grid.append("kubernetes.store=s3://bucket-of-a-team/cliprd/production")
    tree = params.load(ROOT / "params.yaml", [*grid, *overrides])
    return next(yaml.safe_load_all(compile_pipeline("ablation", tree, IMAGE)))


def metadata(stage: str) -> dict:
    """As a step writes them, of a benchmark of many tasks."""
    inputs = {"model": digits(64), "reference": digits(64)}
    inputs |= (
        {f"task:a_task_of_a_long_name_{number}": digits(64) for number in range(TASKS)} if stage == "results" else {}
    )
    facts = {"model": f"student:{digits(16)}", "method": "clip_rd", "run": "clip_rd-exp-0", "seed": 0, "steps": 1000}
    made = Manifest(stage="benchmark", params={}, inputs=inputs, files={}, facts=facts, code="0.1.0+522a02d7985c")
    return {**ui.metadata(made, location="/tmp"), "display_name": stage, "store_session_info": SESSION}


def task_uuid() -> str:
    return "-".join(map(digits, (8, 4, 4, 4, 12)))


@functools.cache
def of_all(name: str) -> dict:
    """An artifact that every training reads."""
    return artifact(name, name, task_uuid(), finished=True)


def artifact(step: str, name: str, uuid: str, *, finished: bool) -> dict:
    uri = f"minio://mlpipeline/v2/artifacts/cliprd-ablation/ec6983ab-0772-40a7-b040-17381a253237/{step}/{uuid}/{name}"
    found = {"name": str(dice.randrange(10_000)), "type": {"instanceSchema": ""}, "uri": uri}
    return {**found, "metadata": metadata(name)} if finished else found


def executor_input(spec: dict, component: dict, step: str, trainings: int) -> dict:
    """A step's one argument, with the pipeline's own defaults as values."""
    defaults = {
        name: value.get("defaultValue") for name, value in spec["root"]["inputDefinitions"]["parameters"].items()
    }
    values, artifacts = {}, {}
    given = component.get("inputDefinitions", {})
    for name in given.get("parameters", {}):
        if name in ("students", "benchmarks"):
            values[name] = [f"{defaults['store']}/distill/{digits(20)}" for _ in range(trainings)]
        else:
            section = {"settings": "distill", "evaluation": "benchmark"}.get(name, name)
            values[name] = defaults.get(section, digits(64))
    for name, definition in given.get("artifacts", {}).items():
        count = trainings if definition.get("isArtifactList") else 1
        own = name in ("model", "students", "benchmarks")
        artifacts[name] = {
            "artifacts": [
                artifact(step, name, task_uuid(), finished=True) if own else of_all(name) for _ in range(count)
            ]
        }
    uuid = task_uuid()
    made = {
        name: {"artifacts": [artifact(step, name, uuid, finished=False)]}
        for name in [*component.get("outputDefinitions", {}).get("artifacts", {}), "executor-logs"]
    }
    return {"inputs": {"parameterValues": values, "artifacts": artifacts}, "outputs": {"artifacts": made}}


def step_nodes(spec: dict, name: str, trainings: int) -> list[dict]:
    """What Argo's nodes of one run of a step hold."""
    component = spec["components"][f"comp-{name}"]
    container = spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
    command = ["/kfp-launcher/launch", "--executor_input", json.dumps(executor_input(spec, component, name, trainings))]
    command += ["--component_spec", json.dumps(component), "--pod_name", "$(KFP_POD_NAME)", *container["command"]]
    pod = {"containers": [{"image": IMAGE, "command": command, "args": container["args"], "env": ["x" * 350]}]}
    patch, whole = json.dumps(pod), {"component": json.dumps(component), "container": json.dumps(container)}
    driver = {"inputs": {**whole, "task": "x" * 300}, "outputs": {"pod-spec-patch": patch}}
    return [driver, driver, *({"inputs": {"pod-spec-patch": patch}} for _ in range(4))]


def status_bytes(spec: dict, trainings: int) -> int:
    """Of Argo's `status.compressedNodes`."""
    names = [name.removeprefix("exec-") for name in spec["deploymentSpec"]["executors"]]
    times = dict.fromkeys(("distill", "benchmark", "distill-benchmark"), trainings) | {"cache": 2}
    steps = (step_nodes(spec, name, trainings) for name in names for _ in range(times.get(name, 1)))
    nodes = list(itertools.chain.from_iterable(steps))
    nodes += [{"outputs": {"iteration": "x" * 1000}}] * (6 * trainings)  # of the loop: an iteration's own driver
    dice.shuffle(nodes)  # Argo's identities are random, and equal texts far apart are compressed each for itself
    frame = {"phase": "Succeeded", "startedAt": "2026-11-27T17:00:00Z", "finishedAt": "2026-11-27T17:00:00Z"}
    status = {f"cliprd-ablation-9jnpx-{dice.randrange(10**9)}": {**frame, **node, "id": digits(10)} for node in nodes}
    return len(base64.b64encode(gzip.compress(json.dumps(status).encode())))


def compare_bytes(spec: dict, name: str, trainings: int) -> int:
    return len(json.dumps(executor_input(spec, spec["components"][f"comp-{name}"], name, trainings)))


def left_out() -> float:
    """By how much a real run's status is larger than what is counted here: nodes' names, hosts, times, edges."""
    spec = compiled("ablation.methods=[clip_kd,clip_rd-exp]", "ablation.seeds=[0]", trainings=2, store=False)
    return RECORDED / status_bytes(spec, 2)


def test_a_hundred_trainings_of_forty_tasks_fit():
    spec = compiled("kubernetes.fuse=true", trainings=TRAININGS)
    assert compare_bytes(spec, "compare-stored", TRAININGS) < 200 * TRAININGS < checks.ARGUMENT_BYTES
    assert 1 < left_out() < 2
    assert left_out() * status_bytes(spec, TRAININGS) < STATUS
    assert left_out() * status_bytes(compiled(trainings=TRAININGS), TRAININGS) > STATUS  # without `fuse`


def test_without_a_store_as_many_trainings_are_let_in_as_fit():
    most = checks.MOST_ARTIFACT_RUNS
    spec = compiled(trainings=4, store=False)
    assert compare_bytes(spec, "compare", most) < checks.ARGUMENT_BYTES
    checks.check_count(most, store="", in_store=False)
    with pytest.raises(ParamsError, match=rf"{most + 1} trainings without kubernetes\.store"):
        checks.check_count(most + 1, store="", in_store=False)
    with pytest.raises(ParamsError, match="store is empty"):
        checks.check_count(2, store="", in_store=True)
