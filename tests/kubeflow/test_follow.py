"""`submit --wait`: a line for every change of a step, and the end as exit code and one clear line."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from cliprd.kubeflow import client, follow
from cliprd.kubeflow.workflow import read_workflow
from tests.kubeflow.argo import CACHED, Argo, recorded
from tests.kubeflow.paths import IMAGE, ROOT

PULL = 'ImagePullBackOff: Back-off pulling image "registry.example/cliprd"'
EVERY = pytest.mark.parametrize("defaults", [True, False], ids=["templateDefaults", "plain"])
WAIT = ("submit", "distill", "--wait", "--run-name", "mine")


def prepared(*pods, driver="Succeeded", phase="Running", form="plain", defaults=True, final=True, **spec):
    """A run whose first step is in this state."""
    built = Argo(defaults=defaults)
    built.root.task("prepare", *pods, driver=driver, final=final)
    return built.manifest(phase, form=form, **spec)


def pod(manifest: dict, step: str = "prepare", number: int = -1) -> str:
    """Name of a step's pod, or of its driver's."""
    nodes = [node for node in read_workflow(manifest).nodes if node.pod and step in node.place]
    return sorted(nodes, key=lambda node: node.turn)[number].pod


def told(out: str, step: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith(step)]


DONE = prepared("Succeeded", phase="Succeeded")


@EVERY
@pytest.mark.parametrize("form", ["plain", "compressed"])
def test_each_change_is_said_once(server, cliprd, defaults, form):
    shape = {"defaults": defaults, "form": form}
    server.workflows = [
        {"metadata": {"name": "w"}, "status": {"phase": ""}},
        Argo("Pending", defaults=defaults).manifest(form=form),
        prepared(driver="Pending", **shape),
        prepared("Pending", **shape),
        prepared("Pending", **shape),
        prepared("Running", **shape),
        prepared("Running", **shape),
        prepared("Succeeded", phase="Succeeded", **shape),
    ]
    code, out, err = cliprd(*WAIT, "--host", server.host)
    assert (code, err) == (0, "")
    assert told(out, "prepare") == [
        "prepare: starting", "prepare: pending", "prepare: running", "prepare: succeeded after 10 s",
    ]  # fmt: skip
    assert out.splitlines()[-1] == "run mine: succeeded"
    assert "driver" not in out


@EVERY
def test_a_step_out_of_the_cache_is_told_from_one_that_ran(server, cliprd, defaults):
    server.workflows = [prepared(CACHED, phase="Succeeded", defaults=defaults)]
    assert told(cliprd(*WAIT, "--host", server.host)[1], "prepare") == ["prepare: cached"]


def test_a_real_run_from_the_cache(server, cliprd):
    server.workflows = [recorded("distill-all-cached")]
    out = cliprd(*WAIT, "--host", server.host)[1]
    assert sum(line.endswith(": cached") for line in out.splitlines()) == 9
    assert "plan: succeeded after 10 s\n" in out


@EVERY
def test_attempts_are_told(server, cliprd, defaults):
    def attempts(*pods, final=True):
        built = Argo(defaults=defaults)
        built.root.task("teacher", *pods, final=final)
        return built.manifest()

    lost = ("Error", "pod deleted")
    server.workflows = [
        attempts("Running"),
        attempts(lost, final=False),
        attempts(lost, "Pending"),
        attempts(lost, "Running"),
        attempts(lost, "Succeeded"),
        DONE,
    ]
    out = cliprd(*WAIT, "--host", server.host)[1]
    gone = "pod deleted; its pod or node was taken away: the next attempt, or run, reuses what is complete."
    assert told(out, "teacher") == [
        "teacher: running",
        f"teacher: attempt 1 failed: {gone}",
        "teacher: retrying: Backoff for 30 seconds",
        "teacher: pending, attempt 2",
        "teacher: running, attempt 2",
        "teacher: succeeded after 10 s, attempt 2",
    ]


def test_a_real_run_that_lost_a_pod(server, cliprd):
    server.workflows = [recorded("distill-running-pod-deleted"), DONE]
    out = cliprd(*WAIT, "--host", server.host)[1]
    lost, waits = told(out, "distill:")
    assert lost.startswith("distill: attempt 1 failed: pod deleted")
    assert waits == "distill: retrying: Backoff for 30 seconds"


@pytest.mark.parametrize("name", ["ablation-succeeded-compressed", "ablation-succeeded-as-the-v1-api-gives-it"])
def test_a_real_run_too_large_for_plain_nodes(server, cliprd, name):
    server.workflows = [recorded(name)]
    runs = "runs=[{method: clip_kd, seed: 0}, {method: vrd-exp, seed: 0}]"
    code, out, err = cliprd("submit", "ablation", "--host", server.host, "--wait", "--input", runs)
    assert (code, err) == (0, "")
    for line in ("cache (1): succeeded after 21 s", "distill (clip_kd-0): succeeded after 57 s",
                 "distill (vrd-exp-0): succeeded after 105 s", "compare: succeeded after 10 s"):  # fmt: skip
        assert f"{line}\n" in out
    assert "cache (clip_kd-0)" not in out


def failed(message: str = "main: Error (exit code 1)", **more) -> dict:
    return prepared(("Failed", message), phase="Failed", **more)


@EVERY
def test_a_failed_step_is_named_with_the_message_of_its_log(server, fails, defaults):
    server.workflows = [prepared("Running"), failed(defaults=defaults)]
    server.logs[pod(server.workflows[-1])] = (
        "Loading\n\x1b[1mcliprd: error: data/x has no manifest. Run `cliprd prepare`.\x1b[0m\n"
        "F1126 22:17:55.123456      22 main.go:78] failed to execute component: exit status 3\n"
        'time="2026-11-26T22:17:55.500Z" level=info msg="sub-process exited" error="<nil>"\nError: exit status 1\n'
    )
    line = fails(1, *WAIT, "--host", server.host)
    assert "step prepare failed: data/x has no manifest. Run `cliprd prepare`. See http://" in line


def test_a_failed_step_whose_log_has_no_line_of_ours(server, fails):
    server.workflows = [failed()]
    server.logs[pod(failed())] = "Traceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: CUDA\nexit\n"
    assert "failed: torch.OutOfMemoryError: CUDA." in fails(1, *WAIT, "--host", server.host)


@pytest.mark.parametrize("form", ["plain", "compressed"])
def test_a_failed_step_whose_log_is_gone(server, fails, form):
    server.workflows = [failed("main: Error (exit code 3): no such bucket. Make it.", form=form)]
    assert "step prepare failed: no such bucket. Make it. See http" in fails(1, *WAIT, "--host", server.host)


def test_where_to_look_if_there_is_neither_message_nor_log(server, fails):
    server.workflows = [failed()]
    line = fails(1, *WAIT, "--host", server.host, "--namespace", "team-a")
    look = f"look at its log: kubectl -n team-a logs {pod(failed())} -c main (the API does not give it: http"
    assert f"step prepare failed: Error (exit code 1); {look}" in line


def test_where_to_look_if_the_log_has_no_error(server, fails):
    server.workflows = [failed()]
    server.logs[pod(failed())] = "begun\nmktemp: Read-only file system\nError: exit status 1\n"
    line = fails(1, *WAIT, "--host", server.host)
    look = f"look at its log, which ends with 'mktemp: Read-only file system': kubectl -n kubeflow logs {pod(failed())}"
    assert f"step prepare failed: Error (exit code 1); {look} -c main. See http" in line


def test_the_namespace_is_the_runs(server, fails, monkeypatch):
    elsewhere = failed()
    elsewhere["metadata"]["namespace"] = "kfp-of-ours"
    monkeypatch.setattr(client.Api, "namespace", property(lambda self: None, lambda self, value: None), raising=False)
    server.workflows = [elsewhere]
    assert "kubectl -n kfp-of-ours logs" in fails(1, *WAIT, "--host", server.host)


def test_every_failed_step_is_told_with_its_reason_at_once(server, cliprd):
    """The other branch of the run may take hours more."""
    built = Argo()
    for iteration, pods in zip(built.root.loop("for-loop-1", 3), ["Running", "Failed", "Failed"], strict=True):
        iteration.task("cache", "Succeeded" if pods == "Running" else (pods, "main: Error (exit code 3): no data."))
    built.root.task("benchmark-teacher", "Running")
    server.workflows = [built.manifest(), built.manifest("Failed")]
    _, out, err = cliprd(*WAIT, "--host", server.host)
    assert told(out, "cache") == [
        "cache (1): succeeded after 10 s",
        "cache (2): failed after 10 s: no data.",
        "cache (3): failed after 10 s: no data.",
    ]
    assert "step cache (2) failed: no data. Also failed: cache (3). See http" in err


def test_a_real_failed_run(server, fails):
    server.workflows = [recorded("distill-failed-in-plan")]
    line = fails(1, *WAIT, "--host", server.host)
    assert "run mine: step plan failed: s3://nosuchbucket/raw/: no such bucket (NoSuchBucket). Check the" in line


def test_the_last_attempt_is_the_one_whose_reason_ends_the_run(server, fails, capsys):
    ends = prepared(("Error", "pod deleted"), ("Failed", "main: Error (exit code 1)"), phase="Failed")
    server.workflows = [ends]
    server.logs[pod(ends)] = "cliprd: error: the second.\n"
    assert "step prepare failed in attempt 2: the second." in fails(1, *WAIT, "--host", server.host)


@EVERY
def test_out_of_memory_names_the_limit_and_its_parameter(server, fails, defaults):
    server.workflows = [failed("OOMKilled (exit code 137)", defaults=defaults)]
    line = fails(1, *WAIT, "--host", server.host, "--set", "kubernetes.steps={prepare: {cpu: '1', memory: 7Gi}}")
    assert "step prepare failed: OOMKilled (exit code 137): its memory limit is 7Gi" in line
    assert "raise kubernetes.steps.prepare.memory in params.yaml." in line


def test_an_exit_code_alone_is_a_reason(server, fails):
    ends = prepared("Failed", phase="Failed")
    for node in ends["status"]["nodes"].values():
        if node["type"] == "Pod" and node["phase"] == "Failed":
            node["outputs"] = {"exitCode": "137"}
    server.workflows = [ends]
    line = fails(1, *WAIT, "--host", server.host)
    assert "step prepare failed: killed (exit code 137), which is OOMKilled unless somebody ended it" in line


@EVERY
def test_the_launchers_error_is_the_reason(server, fails, defaults):
    server.workflows = [failed(defaults=defaults)]
    server.logs[pod(server.workflows[0])] = (
        "I1126 22:17:55.1  22 launcher_v2.go:1] uploading\n"
        "F1126 22:17:55.123456      22 main.go:78] failed to execute component: failed to upload output artifact"
        ' "shards": blob (code=Unknown): AuthorizationHeaderMalformed: the region is wrong\n\tstatus code: 400\n'
    )
    line = fails(1, *WAIT, "--host", server.host)
    assert 'failed to upload output artifact "shards": blob (code=Unknown): AuthorizationHeaderMalformed' in line
    assert "status code: 400; correct region and endpoint of KFP's artifact store" in line


@EVERY
def test_a_driver_that_fails_is_its_steps_failure(server, fails, defaults):
    server.workflows = [prepared(driver=("Error", "pod deleted"), phase="Failed", defaults=defaults)]
    assert "step prepare in KFP's driver failed: pod deleted" in fails(1, *WAIT, "--host", server.host)


def test_a_drivers_log_has_its_reason(server, fails):
    ends = prepared(driver=("Failed", "Error (exit code 1)"), phase="Failed")
    server.workflows = [ends]
    server.logs[pod(ends, "prepare-driver")] = (
        "F1126 22:17:55.123456  7 main.go:79] KFP driver: driver.Container(pipelineName=cliprd-distill) failed: "
        "rpc error: code = Unavailable desc = mlmd\n"
    )
    line = fails(1, *WAIT, "--host", server.host)
    assert "step prepare in KFP's driver failed: KFP driver: driver.Container(" in line
    assert "rpc error: code = Unavailable desc = mlmd. See" in line


@EVERY
def test_a_root_driver_that_fails(server, fails, defaults):
    server.workflows = [
        Argo(("Failed", "wait: Error (exit code 64): Unauthorized"), defaults=defaults).manifest("Failed")
    ]
    line = fails(1, *WAIT, "--host", server.host)
    assert "step root-driver, a driver of KFP's, failed: wait: Error (exit code 64): Unauthorized." in line


def test_a_run_that_argo_could_not_run(server, fails):
    server.workflows = [{"metadata": {"name": "w"}, "status": {"phase": "Error", "message": "invalid spec: no x"}}]
    assert "run mine: failed: no step of it failed: invalid spec: no x." in fails(1, *WAIT, "--host", server.host)


@EVERY
def test_a_canceled_run_names_what_ran(server, fails, defaults):
    ended = prepared(
        ("Failed", "Step exceeded its deadline"), phase="Failed", defaults=defaults, activeDeadlineSeconds=0
    )
    server.workflows = [prepared("Pending"), ended]
    for server.state in ("", "CANCELED"):
        server.looked = 1
        assert "run mine: canceled during prepare. See" in fails(1, *WAIT, "--host", server.host)


def test_a_run_that_was_canceled_before_its_first_step(server, fails):
    driver = Argo(("Failed", "Step exceeded its deadline")).manifest("Failed", activeDeadlineSeconds=0)
    server.workflows = [driver]
    assert "run mine: canceled during root-driver. See" in fails(1, *WAIT, "--host", server.host)


@pytest.mark.parametrize(("state", "said"), [("CANCELED", ": canceled."), ("FAILED", "failed: no step of it failed.")])
def test_a_run_that_ends_without_a_failed_step(server, fails, state, said):
    server.state = state
    server.workflows = [prepared("Running")]
    assert said in fails(1, *WAIT, "--host", server.host)


def test_a_failed_step_in_a_run_that_counts_as_succeeded(server, fails):
    server.state = "SUCCEEDED"
    server.workflows = [failed("main: Error (exit code 3): no data.")]
    line = fails(1, *WAIT, "--host", server.host)
    assert "run mine: ended as succeeded, but step prepare failed: no data." in line


@EVERY
@pytest.mark.parametrize("form", ["plain", "compressed"])
def test_an_image_that_cannot_be_pulled_is_said_at_once_and_once(server, cliprd, defaults, form):
    waiting = prepared(("Pending", PULL), defaults=defaults, form=form)
    server.workflows = [waiting, waiting, waiting, DONE]
    _, out, _ = cliprd(*WAIT, "--host", server.host, "--namespace", "team-a")
    (line,) = [line for line in out.splitlines() if "ImagePullBackOff" in line]
    assert f"image {IMAGE} cannot be pulled" in line
    assert line.endswith(f"kubectl -n team-a describe pod {pod(waiting)}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("secret-missing", 'CreateContainerConfigError: secret "cliprd-s3-missing" not found; make the secret'),
        ("unschedulable", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu; has the cluster a node"),
    ],
)  # fmt: skip
def test_a_real_pod_that_cannot_start_is_said_at_once(server, cliprd, name, said):
    waiting = recorded(f"distill-pending-{name}")
    server.workflows = [waiting, waiting, DONE]
    (line,) = [
        line for line in cliprd(*WAIT, "--host", server.host)[1].splitlines() if line.startswith("plan: pending:")
    ]
    assert line.startswith(f"plan: pending: {said}")
    assert line.endswith(f"See: kubectl -n kubeflow describe pod {pod(waiting, 'plan')}")


def test_a_message_cannot_write_to_the_terminal(server, cliprd):
    server.workflows = [prepared(("Pending", "ErrImagePull: \x1b[2J\u202e")), DONE]
    out = cliprd(*WAIT, "--host", server.host)[1]
    assert "\\u001b[2J\\u202e" in out
    assert "\x1b" not in out


def test_the_second_trouble_of_a_pod_is_said_too(server, cliprd):
    server.workflows = [
        prepared(("Pending", "Unschedulable: 0/3 nodes")),
        prepared(("Pending", "ContainerCreating")),
        prepared(("Pending", "ErrImagePull: not found")),
        DONE,
    ]
    first, second = told(cliprd(*WAIT, "--host", server.host)[1], "prepare: pending:")
    assert "Unschedulable" in first
    assert "ErrImagePull" in second


@EVERY
@pytest.mark.parametrize(
    "message", [PULL, "Unschedulable: 0/1 nodes are available", 'pods "x" is forbidden: exceeded quota: q']
)
def test_a_root_driver_that_cannot_start_is_said_at_once(server, cliprd, defaults, message):
    waiting = Argo(("Pending", message), defaults=defaults).manifest()
    server.workflows = [waiting, waiting, DONE]
    (line,) = told(cliprd(*WAIT, "--host", server.host)[1], "root-driver")
    assert line.startswith(f"root-driver: starting: {message}")
    assert line.endswith(pod(waiting, "root-driver"))


def test_a_workflow_that_argo_holds_back_is_said_at_once(server, cliprd):
    held = {"metadata": {"name": "w"}, "status": {"phase": "Pending", "message": "Waiting for kubeflow/Mutex/x lock."}}
    server.workflows = [held, held, DONE]
    assert told(cliprd(*WAIT, "--host", server.host)[1], "no step") == [
        "no step yet: Waiting for kubeflow/Mutex/x lock."
    ]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (prepared("Pending"), f"can the cluster pull image {IMAGE}"),
        (prepared(("Pending", "Unschedulable: 0/3 nodes: Insufficient nvidia.com/gpu")), "a node with room"),
        (prepared(driver="Pending"), "image of KFP's driver"),
        (prepared(driver="Running"), "its pod runs"),
        (Argo("Pending").manifest(), "image of KFP's driver"),
        (Argo().manifest(), "workflow-controller running"),
        ({"metadata": {"name": "w"}, "status": {"phase": "Running"}}, "workflow-controller running"),
    ],
)
def test_what_waits_for_long_is_said_and_a_timeout_ends_it(server, fails, monkeypatch, capsys, state, said):
    # A tenth of a second a look, however busy the machine is: the third is beyond STUCK_SECONDS, the fifth too late.
    clock = SimpleNamespace(monotonic=lambda: server.looked / 10, sleep=time.sleep)
    monkeypatch.setattr(follow, "time", clock)
    monkeypatch.setattr(follow, "STUCK_SECONDS", 0.15)
    server.workflows = [state]
    line = fails(75, *WAIT, "--host", server.host, "--timeout", "0.4")
    assert said in line
    assert "It continues: http" in line


def test_without_the_old_api_states_are_still_told(server, cliprd, fails, capsys):
    server.old_api = False
    server.workflows = [prepared("Running"), prepared("Succeeded", phase="Succeeded")]
    code, out, err = cliprd(*WAIT, "--host", server.host)
    assert (code, told(out, "prepare")) == (0, ["prepare: running", "prepare: succeeded after 10 s"])
    (line,) = err.splitlines()
    assert line.startswith("cliprd: the v1 API, which has reasons, attempts and iterations, gives no workflow: http")
    server.workflows = [failed()]
    line = fails(1, *WAIT, "--host", server.host)
    assert "step prepare failed: it left no message; look at its log in the UI: the v2 API gives no reason. See" in line


def test_nodes_in_a_database_are_said_once_and_states_are_still_told(server, cliprd):
    server.workflows = [
        prepared("Running"),
        prepared("Running", form="offloaded"),
        prepared("Succeeded", form="offloaded", phase="Succeeded"),
    ]
    code, out, err = cliprd(*WAIT, "--host", server.host)
    assert (code, told(out, "prepare")) == (0, ["prepare: running", "prepare: succeeded after 10 s"])
    assert "workflow-controller" not in out
    assert (
        err
        == "cliprd: Argo keeps this run's nodes in its database: no reasons, attempts and iterations, only states.\n"
    )


@pytest.mark.parametrize(
    "garbled", ['{"metadata": {"name": "w"}, "status": {"compressedNodes": "AAAA"}}', "[]", "{cut"]
)
def test_a_workflow_that_cannot_be_read_is_said_and_states_are_still_told(server, cliprd, garbled):
    server.garbled = garbled
    server.workflows = [prepared("Succeeded", phase="Succeeded")]
    code, out, err = cliprd(*WAIT, "--host", server.host)
    assert (code, told(out, "prepare")) == (0, ["prepare: succeeded after 10 s"])
    (line,) = err.splitlines()
    assert line.startswith("cliprd: the v1 API, which has reasons, attempts and iterations, gives no workflow")


@EVERY
def test_twenty_iterations(server, cliprd, defaults):
    built = Argo(defaults=defaults)
    for iteration in built.root.loop("for-loop-1", 20):
        iteration.task("cache", "Succeeded")
    server.workflows = [built.manifest("Succeeded", form="compressed")]
    lines = told(cliprd(*WAIT, "--host", server.host)[1], "cache")
    assert set(lines) == {f"cache ({number}): succeeded after 10 s" for number in range(1, 21)}
    assert len(lines) == 20


@EVERY
def test_a_retrain_whose_gate_refuses(server, cliprd, defaults):
    built = Argo(defaults=defaults)
    inner = built.root.graph("exit-handler-1")
    inner.task("gate", "Succeeded")
    publish = inner.graph("condition-3")
    publish.left_out("condition-4")
    publish.graph("condition-5").task("refuse", "Succeeded")
    built.root.on_exit("exit-handler-1").task("record", "Succeeded")
    server.workflows = [built.manifest("Succeeded")]
    code, out, err = cliprd(
        "submit", "retrain", "--host", server.host, "--wait", "--set", "promote.champion=s3://x/champion"
    )
    assert (code, err) == (0, "")
    for line in ("gate: succeeded after 10 s", "promote: skipped", "refuse: succeeded after 10 s",
                 "record: succeeded after 10 s"):  # fmt: skip
        assert f"{line}\n" in out


def test_a_server_that_is_away_for_a_while_is_waited_for(server, cliprd):
    def away() -> None:
        if server.looked == 2:
            server.trouble, server.trouble_at, server.troubles = "503", "/runs/", client.READ_ATTEMPTS + 1

    server.on_run = away
    server.workflows = [prepared("Running"), prepared("Running"), DONE]
    code, out, err = cliprd("submit", "distill", "--host", server.host, "--wait")
    assert code == 0
    assert "Retrying" in err
    assert "prepare: succeeded" in out


def test_a_server_that_stays_away_is_given_up(server, fails, monkeypatch):
    monkeypatch.setattr(follow, "LOST_SECONDS", 0.05)
    server.trouble, server.trouble_at = "reset", "/runs/"
    assert "broke the connection" in fails(75, "submit", "distill", "--host", server.host, "--wait")


def test_a_token_that_expires_while_waiting_is_said(server, fails, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "s3cr3t")
    server.token = "s3cr3t"
    server.on_run = lambda: setattr(server, "token", "another")
    server.workflows = [prepared("Running")]
    assert "does not accept the token" in fails(3, "submit", "distill", "--host", server.host, "--wait")


def test_a_token_file_is_read_anew(server, cliprd, tmp_path):
    """A projected token is replaced within the hour; runs take longer."""
    file = tmp_path / "token"
    file.write_text("first")
    server.token = "first"

    def replace() -> None:
        server.token = "second"
        file.write_text("second")

    server.on_run = replace
    server.workflows = [prepared("Running"), DONE]
    assert cliprd("submit", "distill", "--host", server.host, "--wait", "--token-file", str(file))[0] == 0


def test_an_interrupt_says_that_the_run_goes_on(server, tmp_path):
    server.workflows = [prepared("Running")]
    command = [sys.executable, "-m", "cliprd.cli", "pipeline", "submit", "distill", "--image", IMAGE, "--wait"]
    with subprocess.Popen(
        [*command, "--host", server.host], cwd=ROOT, env={**os.environ, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    ) as running:  # fmt: skip
        assert running.stdout
        while "running" not in running.stdout.readline():
            pass
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "cliprd: the run continues: http" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["--timeout", "3"], ["--wait", "--timeout", "0"]])
def test_a_timeout_needs_a_wait(server, fails, arguments):
    assert "--timeout limits --wait" in fails(2, "submit", "distill", "--host", server.host, *arguments)
