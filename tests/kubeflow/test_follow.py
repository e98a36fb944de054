"""`submit --wait`: a line for every change of a step, and the end as exit code and one clear line."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from cliprd.kubeflow import client, follow
from tests.kubeflow.kfp_server import workflow
from tests.kubeflow.paths import IMAGE, ROOT

PULL = 'ImagePullBackOff: Back-off pulling image "registry.example/cliprd"'


def prepared(*more, driver="Succeeded", body="Running", pod="Running", phase="Running", **messages):
    """A run whose first step is in this state."""
    nodes = [("d", "prepare-driver", driver, ("p",))]
    if body:
        nodes += [("p", "prepare", body, ("e",)), ("e", "executor", pod, tuple(node[0] for node in more))]
    return workflow(phase, ("r", "root", "Running", ("d",)), *nodes, *more, **messages)


DONE = prepared(body="Succeeded", pod="Succeeded", phase="Succeeded")


def test_each_change_is_said_once(server, cliprd):
    server.workflows = [
        workflow("Pending"),
        prepared(driver="Pending", body=""),
        prepared(pod="Pending"),
        prepared(pod="Pending"),
        prepared(),
        prepared(),
        DONE,
    ]
    code, out, err = cliprd("submit", "distill", "--host", server.host, "--run-name", "mine", "--wait")
    assert (code, err) == (0, "")
    told = [line for line in out.splitlines() if line.startswith("prepare")]
    assert told == ["prepare: starting", "prepare: pending", "prepare: running", "prepare: succeeded"]
    assert out.splitlines()[-1] == "run mine: succeeded"


def test_a_step_out_of_the_cache_is_told_from_one_that_ran(server, cliprd):
    server.workflows = [prepared(body="Succeeded", pod="Skipped", phase="Succeeded")]
    assert "prepare: cached\n" in cliprd("submit", "distill", "--host", server.host, "--wait")[1]


def test_attempts_are_told(server, cliprd):
    def attempts(*states: str) -> dict:
        pods = [(f"a{number}", f"executor({number})", state, ()) for number, state in enumerate(states)]
        return workflow(
            "Running",
            ("t", "teacher", "Running", ("e",)),
            ("e", "executor", "Running", tuple(pod[0] for pod in pods)),
            *pods,
        )

    server.workflows = [
        attempts("Running"),
        attempts("Failed"),
        attempts("Failed", "Pending"),
        attempts("Failed", "Running"),
        DONE,
    ]
    out = cliprd("submit", "distill", "--host", server.host, "--wait")[1]
    told = [line for line in out.splitlines() if line.startswith("teacher")]
    assert told == [
        "teacher: running", "teacher: retrying", "teacher: pending, attempt 2", "teacher: running, attempt 2",
    ]  # fmt: skip


def test_students_of_a_loop_have_their_names(server, cliprd):
    loop = workflow(
        "Succeeded",
        ("i", "iteration-iterations", "Succeeded", ("i0", "i1")),
        ("i0", "iteration-iterations(0:0)", "Succeeded", ("d0",)),
        ("i1", "iteration-iterations(1:1)", "Succeeded", ("d1",)),
        ("d0", "distill-driver", "Succeeded", ("x0",)),
        ("d1", "distill-driver", "Succeeded", ("x1",)),
        ("x0", "distill", "Succeeded", ("e0",)),
        ("x1", "distill", "Succeeded", ("e1",)),
        ("e0", "executor", "Succeeded", ("c",)),  # the edge that leaves the loop
        ("e1", "executor", "Skipped", ("c",)),
        ("c", "compare-driver", "Succeeded", ("y",)),
        ("y", "compare", "Succeeded", ("ey",)),
        ("ey", "executor", "Succeeded", ()),
    )
    server.workflows = [loop]
    runs = "runs=[{method: clip_kd, seed: 0}, {method: vrd-exp, seed: 0}]"
    out = cliprd("submit", "ablation", "--host", server.host, "--wait", "--input", runs)[1]
    assert "distill (clip_kd-0): succeeded\n" in out
    assert "distill (vrd-exp-0): cached\n" in out
    assert "\ncompare: succeeded\n" in out


def failed(message: str = "main: Error (exit code 1)") -> dict:
    return prepared(("td", "teacher-driver", "Omitted", ()), body="Failed", pod="Failed", phase="Failed", e=message)


def test_a_failed_step_is_named_with_the_message_of_its_log(server, fails):
    server.workflows = [prepared(), failed()]
    server.logs["wf-impl-e"] = (
        "Loading\n\x1b[1mcliprd: error: data/x has no manifest. Run `cliprd prepare`.\x1b[0m\nI1 launcher.go exit\n"
    )
    line = fails(1, "submit", "distill", "--host", server.host, "--wait")
    assert "step prepare failed: data/x has no manifest. Run `cliprd prepare`. See http://" in line


def test_a_failed_step_whose_log_has_no_line_of_ours(server, fails):
    server.workflows = [failed()]
    server.logs["wf-impl-e"] = "Traceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: CUDA\nexit\n"
    assert "failed: torch.OutOfMemoryError: CUDA." in fails(1, "submit", "distill", "--host", server.host, "--wait")


def test_a_failed_step_whose_log_is_gone(server, fails):
    server.workflows = [failed("OOMKilled (exit code 137)")]
    assert "step prepare failed: OOMKilled (exit code 137)." in fails(
        1, "submit", "distill", "--host", server.host, "--wait"
    )


def test_a_driver_that_fails_is_its_steps_failure(server, fails):
    server.workflows = [prepared(driver="Error", body="", phase="Failed", d="pod deleted")]
    assert "step prepare failed: pod deleted." in fails(1, "submit", "distill", "--host", server.host, "--wait")


@pytest.mark.parametrize(("phase", "said"), [("Canceled", ": canceled."), ("Failed", "failed: no step of it failed.")])
def test_a_run_that_ends_without_a_failed_step(server, fails, phase, said):
    server.workflows = [prepared(phase=phase)]
    assert said in fails(1, "submit", "distill", "--host", server.host, "--wait")


def test_an_image_that_cannot_be_pulled_is_said_at_once_and_once(server, cliprd):
    waiting = prepared(pod="Pending", e=PULL)
    server.workflows = [waiting, waiting, waiting, DONE]
    _, out, _ = cliprd("submit", "distill", "--host", server.host, "--wait", "--namespace", "team-a")
    (line,) = [line for line in out.splitlines() if "ImagePullBackOff" in line]
    assert f"image {IMAGE} cannot be pulled" in line
    assert line.endswith("kubectl -n team-a describe pod wf-impl-e")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (prepared(pod="Pending"), f"can the cluster pull image {IMAGE}"),
        (prepared(pod="Pending", e="Unschedulable: 0/3 nodes: Insufficient nvidia.com/gpu"), "a node with room"),
        (prepared(driver="Pending", body=""), "image of KFP's driver"),
        (workflow("Running"), "workflow-controller running"),
    ],
)
def test_what_waits_for_long_is_said_and_a_timeout_ends_it(server, fails, monkeypatch, capsys, state, said):
    # A tenth of a second a look, however busy the machine is: the third is beyond STUCK_SECONDS, the fifth too late.
    clock = SimpleNamespace(monotonic=lambda: server.looked / 10, sleep=time.sleep)
    monkeypatch.setattr(follow, "time", clock)
    monkeypatch.setattr(follow, "STUCK_SECONDS", 0.15)
    server.workflows = [state]
    line = fails(75, "submit", "distill", "--host", server.host, "--wait", "--timeout", "0.4")
    assert said in line
    assert "It continues: http" in line


def test_without_the_old_api_states_are_still_told(server, fails):
    server.old_api = False
    server.workflows = [prepared(), failed()]
    line = fails(1, "submit", "distill", "--host", server.host, "--wait")
    assert "step prepare failed: it left no message." in line


def test_a_server_that_is_away_for_a_while_is_waited_for(server, cliprd):
    def away() -> None:
        if server.looked == 2:
            server.trouble, server.trouble_at, server.troubles = "503", "/runs/", client.READ_ATTEMPTS + 1

    server.on_run = away
    server.workflows = [prepared(), prepared(), DONE]
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
    server.workflows = [prepared()]
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
    server.workflows = [prepared(), DONE]
    assert cliprd("submit", "distill", "--host", server.host, "--wait", "--token-file", str(file))[0] == 0


def test_an_interrupt_says_that_the_run_goes_on(server, tmp_path):
    server.workflows = [prepared()]
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
