"""What a cluster is told: agreed on, complete, and enough for the same training."""

import json
import os
from pathlib import Path

import pytest
import yaml

from cliprd import cli, params
from cliprd.cli import common
from cliprd.errors import ParamsError
from cliprd.kubeflow.trainjob.spec import FORMS, dump, job_objects
from tests.kubeflow.paths import IMAGE, ROOT

GOLDEN = Path(__file__).parents[2] / "golden"
FOLDERS = {"shards": "s3://pairs/shards", "cache": Path("/data/cache"), "output": "s3://pairs/student"}
ASKED = (
    "kubernetes.volumes=[{claim: pairs, path: /data}]",
    "kubernetes.secrets=[{name: cliprd-s3, keys: {id: AWS_ACCESS_KEY_ID, key: AWS_SECRET_ACCESS_KEY}}]",
    "kubernetes.environment={AWS_ENDPOINT_URL: 'http://s3.storage:9000'}",
    "kubernetes.image_pull_secrets=[registry]",
    "kubernetes.steps.distill={cpu: '16', memory: 64Gi, accelerator: nvidia.com/gpu, accelerators: 4, scratch: 200Gi,"
    " shared_memory: 16Gi, node_selector: {gpu: h100}, tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}],"
    " timeout: 86400}",
    "tracking.uri=http://mlflow.mlops:5000",
)


def tree(*overrides: str) -> params.Params:
    return params.load(ROOT / "params.yaml", [*ASKED, *overrides])


def made(form: str = "trainjob", *overrides: str, **changes) -> list[dict]:
    return job_objects(tree(*overrides), IMAGE, form=form, **{"nodes": 3, **FOLDERS, **changes})


def pods(trees: list[dict]) -> list[dict]:
    """Every pod's spec in it."""
    if trees[-1]["kind"] == "PyTorchJob":
        return [one["template"]["spec"] for one in trees[-1]["spec"]["pytorchReplicaSpecs"].values()]
    (job,) = trees[0]["spec"]["template"]["spec"]["replicatedJobs"]
    return [job["template"]["spec"]["template"]["spec"]]


@pytest.mark.parametrize("form", FORMS)
def test_the_run_of_a_step_goes_to_the_pods_and_not_into_the_name(form):
    plain, within = made(form), made(form, unnamed={"MLFLOW_RUN_ID": "abc", "AWS_ENDPOINT_URL": "another"})
    assert [one["metadata"] for one in within] == [one["metadata"] for one in plain]
    for before, after in zip(pods(plain), pods(within), strict=True):
        given = before["containers"][0]["env"]
        assert "AWS_ENDPOINT_URL" in {variable["name"] for variable in given}
        (container,) = after["containers"]
        assert container == {**before["containers"][0], "env": [*given, {"name": "MLFLOW_RUN_ID", "value": "abc"}]}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_what_was_agreed(form, capsys, monkeypatch):
    """Run with CLIPRD_UPDATE_GOLDEN=1 to accept a deliberate change."""
    monkeypatch.chdir(ROOT)
    overrides = [part for one in ASKED for part in ("--set", one)]
    folders = [part for name, place in FOLDERS.items() for part in (f"--{name}", str(place))]
    command = ["pipeline", "trainjob", "--form", form, "--nodes", "3", "--image", IMAGE, *folders, *overrides]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert text == dump(made(form))
    golden = GOLDEN / f"{form}.yaml"
    if os.environ.get("CLIPRD_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
    assert list(yaml.safe_load_all(text)) == json.loads(json.dumps(made(form)))


@pytest.mark.parametrize("form", FORMS)
def test_every_pod_is_shut_in(form):
    for pod in pods(made(form)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
        assert "value" not in next(one for one in container["env"] if one["name"] == "AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize("override", ["distill.eps=1e-06", "distill.weights={xrd: 0.5}", "distill.seed=7"])
def test_the_pods_command_has_the_same_parameters(override):
    wanted = tree(override, "distill.method=clip_rd-exp")
    (pod,) = pods(job_objects(wanted, IMAGE, nodes=2, form="trainjob", **FOLDERS))
    command = pod["containers"][0]["command"]
    options = cli.parser().parse_args(command[1:])
    found = common.load(options)
    for name in ("distill", "student", "augmentation", "tracking"):
        assert getattr(found, name) == getattr(wanted, name)
    assert {name: getattr(options, name) for name in FOLDERS} == FOLDERS


def test_a_tracking_file_does_not_go_along():
    (pod,) = pods(made("trainjob", "tracking.uri=sqlite:///mlflow.db"))
    assert "sqlite" not in str(pod)


@pytest.mark.parametrize("form", FORMS)
def test_the_name_says_the_content(form):
    names = {
        one[-1]["metadata"]["name"]
        for one in (
            made(form), made(form), made(form, nodes=4), made(form, "distill.seed=1"), made(form, "distill.lr=0.1"),
            made(form, output="s3://pairs/other"),
        )
    }  # fmt: skip
    assert len(names) == 5
    assert all(len(name) < 50 and name.replace("-", "").isalnum() and name.islower() for name in names)


@pytest.mark.parametrize("form", FORMS)
def test_kueue_queues_the_job_and_not_its_pods(form):
    *others, job = made(form, "kubernetes.queue=team-a", "kubernetes.priority_class=high")
    assert job["metadata"]["labels"] == {
        "app.kubernetes.io/name": "cliprd",
        "app.kubernetes.io/component": "distill",
        "kueue.x-k8s.io/queue-name": "team-a",
        "kueue.x-k8s.io/priority-class": "high",
    }
    assert "kueue" not in str([others, job["spec"]])


@pytest.mark.parametrize("form", FORMS)
def test_nodes_are_required_and_preferred_as_in_a_pipeline(form):
    match = "[{key: gpu, values: [h100]}, {key: spot, operator: DoesNotExist}]"
    asked = f"[{{match: {match}}}, {{weight: 10, match: [{{key: age, operator: Lt, values: ['3']}}]}}]"
    for pod in pods(made(form, f"kubernetes.steps.distill={{node_affinity: {asked}}}")):
        assert pod["affinity"] == {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "gpu", "operator": "In", "values": ["h100"]},
                                {"key": "spot", "operator": "DoesNotExist", "values": []},
                            ]
                        }
                    ]
                },
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 10,
                        "preference": {"matchExpressions": [{"key": "age", "operator": "Lt", "values": ["3"]}]},
                    }
                ],
            }
        }
    assert all("affinity" not in pod for pod in pods(made(form)))


def test_how_long_a_pytorchjob_that_has_ended_is_kept(capsys, monkeypatch):
    assert made("pytorchjob", "kubernetes.ttl_seconds=600")[-1]["spec"]["runPolicy"]["ttlSecondsAfterFinished"] == 600
    assert made("trainjob", "kubernetes.ttl_seconds=600") == made("trainjob")
    monkeypatch.chdir(ROOT)
    folders = [part for name in FOLDERS for part in (f"--{name}", f"s3://pairs/{name}")]
    command = ["pipeline", "trainjob", "--nodes", "2", "--image", IMAGE, "--set", "kubernetes.ttl_seconds=600"]
    assert cli.main([*command, "--set", "tracking.uri=", *folders]) == 0
    assert capsys.readouterr().err == (
        "cliprd: kubernetes.ttl_seconds has no effect on a TrainJob: delete it when it has ended\n"
    )


def test_what_heals_is_tried_again_and_nothing_else():
    (job,) = made()[0]["spec"]["template"]["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    final, ignored = spec["podFailurePolicy"]["rules"]
    assert (final["action"], final["onExitCodes"]["values"]) == ("FailJob", [1, 2, 3, 4, 5])
    assert ignored["action"] == "Ignore"
    assert spec["backoffLimit"] == 2 * 3  # retries, each of which may cost every node a pod
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # else Kubernetes takes no failure policy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"shards": Path("work/shards")},
            "--shards work/shards: many nodes need a folder that all of them see. Give s3:",
        ),
        ({"output": Path("/database/student")}, "or one under /data."),
        ({"nodes": 0}, "--nodes 0"),
    ],
)
def test_a_folder_of_one_machine_is_refused(changes, words):
    with pytest.raises(ParamsError) as error:
        made(**changes)
    assert words in str(error.value)
