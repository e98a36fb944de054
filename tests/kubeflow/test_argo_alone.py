"""Workflows for Argo without Kubeflow: each step a command of cliprd's own, with all that was asked for."""

import re

import pytest
import yaml

from cliprd import cli, document, params
from cliprd.cli.main import parser
from cliprd.errors import ParamsError
from cliprd.kubeflow.argo import PARAMS, compile_argo
from tests.kubeflow.paths import IMAGE, ROOT

STORE = "kubernetes.store=s3://pairs/work"


def workflow(name: str, *overrides: str, **options) -> dict:
    return yaml.safe_load(compile_argo(name, params.load(ROOT / "params.yaml", [STORE, *overrides]), IMAGE, **options))


def templates(spec: dict) -> dict[str, dict]:
    return {template["name"]: template for template in spec["templates"]}


def commands(spec: dict) -> list[tuple[str, list[str]]]:
    """Step and command of each pod, in an order that their dependencies allow."""
    found, done, known = [], set(), templates(spec)
    tasks = known[spec["entrypoint"]]["dag"]["tasks"]
    while waiting := [task for task in tasks if task["name"] not in done]:
        ready = [task for task in waiting if set(task.get("dependencies", [])) <= done]
        assert ready, "a circle"
        for task in ready:
            done.add(task["name"])
            for item in task.get("withItems", [{}]):
                values = {f"inputs.parameters.{name}": str(value) for name, value in item.items()}
                command = known[task["template"]]["container"]["command"]
                filled = [re.sub(r"{{(.*?)}}", lambda match: values[match[1]], part) for part in command]  # noqa: B023
                found.append((task["name"], filled))
    return found


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("distill", ["distill", "benchmark", "report"]),
        ("ablation", ["distill"] * 8 + ["benchmark"] * 8 + ["compare"]),
        ("retrain", ["distill", "benchmark", "report", "promote"]),
    ],
)
def test_every_step_is_a_command_of_ours(name, steps):
    methods = "ablation.methods=[baseline,clip_kd,clip_rd-raw,clip_rd-exp]"
    ran = commands(workflow(name, methods, "ablation.seeds=[0,1]")["spec"])
    first = {"plan", "prepare", "teacher", "cache", "benchmark-teacher"}
    assert {step for step, _ in ran[:5]} == first
    assert [step for step, _ in ran[5:]] == steps
    for _, (program, *arguments) in ran:
        assert program == "cliprd"
        options = parser().parse_args(arguments)  # ends the process where an option or its value is wrong
        assert str(options.params) == PARAMS
    made = [part[part.index("--output") + 1] for _, part in ran if "--output" in part]
    assert len(made) == len(set(made))
    assert all(folder.startswith(f"s3://pairs/work/argo/{name}/") for folder in made)


def test_the_parameters_are_the_tree_and_stand_where_they_can_be_read():
    text = compile_argo("distill", params.load(ROOT / "params.yaml", [STORE, "distill.epochs=7"]), IMAGE)
    (given,) = yaml.safe_load(text)["spec"]["arguments"]["parameters"]
    read = params.validate(document.parse(given["value"]), where="test")
    assert read.distill.epochs == 7
    assert read.tracking.uri == ""  # a file is another one in every pod
    assert "value: |" in text  # lines to read, not one that is quoted


def test_resources_secrets_and_retries():
    spec = workflow(
        "retrain", "kubernetes.default={cpu: '2', memory: 4Gi}", "kubernetes.retries=3", "kubernetes.backoff=45s",
        "kubernetes.steps.distill={cpu: '8', accelerator: nvidia.com/gpu, accelerators: 4, node_selector: {gpu: h100},"
        " tolerations: [{key: gpu, effect: NoSchedule}], timeout: 3600}",
        "kubernetes.secrets=[{name: s3, keys: {secret: AWS_SECRET_ACCESS_KEY}}]", "kubernetes.ttl_seconds=600",
        "kubernetes.queue=team", "kubernetes.image_pull_secrets=[registry]",
    )["spec"]  # fmt: skip
    known = templates(spec)
    trained, packed = known["distill"], known["prepare"]
    assert trained["container"]["resources"]["limits"] == {"cpu": "8", "nvidia.com/gpu": "4"}
    assert packed["container"]["resources"]["requests"] == {"cpu": "2", "memory": "4Gi"}
    assert (trained["nodeSelector"], trained["activeDeadlineSeconds"]) == ({"gpu": "h100"}, 3600)
    assert trained["tolerations"] == [{"operator": "Exists", "key": "gpu", "effect": "NoSchedule"}]
    assert trained["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}
    for name, template in known.items():
        if name == spec["entrypoint"]:
            continue
        inner = template["container"]
        assert inner["image"] == IMAGE
        assert inner["securityContext"]["readOnlyRootFilesystem"] is True
        assert template["securityContext"]["runAsNonRoot"] is True
        reference = {"secretKeyRef": {"name": "s3", "key": "secret"}}
        assert inner["env"] == [{"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": reference}]
        again = template.get("retryStrategy")
        assert (again is None) if name == "plan" else (again["limit"], again["backoff"]["duration"]) == (3, "45s")
        (given,) = template["inputs"]["artifacts"]
        assert given == {"name": "params", "path": PARAMS, "raw": {"data": "{{workflow.parameters.params}}"}}
    assert spec["ttlStrategy"] == {"secondsAfterCompletion": 600}
    assert spec["imagePullSecrets"] == [{"name": "registry"}]


def test_a_schedule_makes_a_cron_workflow():
    made = workflow("retrain", cron="0 3 * * *")
    assert (made["kind"], made["metadata"]["name"]) == ("CronWorkflow", "cliprd-retrain")
    assert made["spec"]["schedules"] == ["0 3 * * *"]
    assert commands(made["spec"]["workflowSpec"]) == commands(workflow("retrain")["spec"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("kubernetes.store=", "kubernetes.store is empty"),
        ("kubernetes.cache_parts=3", "kubernetes.cache_parts has no effect"),
        ("kubernetes.nodes=2", "kubernetes.nodes has no effect"),
        ("kubernetes.fuse=true", "kubernetes.fuse has no effect"),
    ],
)
def test_what_has_no_effect_is_refused(override, words):
    with pytest.raises(ParamsError, match=words):
        workflow("distill", override)


def test_the_command_writes_it(tmp_path, capsys):
    command = ["pipeline", "compile", "distill", "--params", str(ROOT / "params.yaml"), "--image", IMAGE]
    output = tmp_path / "distill.yaml"
    assert cli.main([*command, "--format", "argo", "--set", STORE, "--output", str(output)]) == 0
    assert yaml.safe_load(output.read_text(encoding="utf-8")) == workflow("distill")
    assert cli.main([*command, "--cron", "0 3 * * *"]) == 2
    assert "--cron needs --format argo" in capsys.readouterr().err
    for wrong, words in (("every night", "--cron"), ("0 61 * * *", "hour"), ("0 0 3 * * *", "seconds")):
        assert cli.main([*command, "--format", "argo", "--set", STORE, "--cron", wrong]) == 2
        assert words in capsys.readouterr().err
