"""The reason of a failed or waiting pod, wherever it stands, with what to do."""

import pytest

from cliprd.kubeflow.outline import Outline
from cliprd.kubeflow.reasons import Reason, failure_reason, is_known, trouble, waiting_reason
from cliprd.kubeflow.run_steps import RunStep
from cliprd.kubeflow.submit import Submission
from cliprd.kubeflow.workflow import WorkflowNode
from cliprd.params import Kubernetes
from tests.kubeflow.paths import IMAGE, ROOT

FATAL = "F1126 22:17:55.123456      22 main.go:78] "
SECTION = {"default": {"memory": "4Gi"}, "steps": {"distill": {"cpu": "4"}, "teacher": {"memory": "16Gi"}}}


@pytest.fixture(scope="module")
def outline() -> Outline:
    text = (ROOT / "pipelines" / "compiled" / "distill.yaml").read_text()
    return Outline(Submission("distill", text, {}, IMAGE, Kubernetes.model_validate(SECTION)))


def step(task="teacher", state="failed", message="", phase="Pending", **more) -> RunStep:
    node = WorkflowNode(("root", task, "executor"), (0,), "Pod", phase, pod="w-x-1", message=message)
    return RunStep(task, task, state, node=node, message=message, **more)


def failure(outline, message: str, log: str = "", **more) -> Reason:
    return failure_reason(step(**more), message, log, outline, "team-a")


@pytest.mark.parametrize(
    ("message", "log"),
    [
        ("OOMKilled (exit code 137)", ""),
        ("main: OOMKilled (exit code 137)", "cliprd: error: an earlier line\n"),
        ("main: Error (exit code 137)", "Traceback\nValueError: an earlier one\n"),
        ("main: Error (exit code 1)", f"{FATAL}failed to execute component: signal: killed\n"),
        ("main: Error (exit code 1)", f"step 1\nKilled.\n{FATAL}failed to execute component: exit status 137\n"),
        ("Error (exit code 1)", 'step 1\nKilled\ntime="2026-11-26T22:17:55Z" level=info\nError: exit status 1\n'),
        ("main: Error (exit code 75)", "cliprd: error: Rank 1 was ended by SIGKILL (out of memory?). Run it again.\n"),
    ],
)  # fmt: skip
def test_lack_of_memory_however_it_shows(outline, message, log):
    reason = failure(outline, message, log)
    assert "OOMKilled" in reason.cause
    assert reason.cause.endswith(": its memory limit is 16Gi")
    assert reason.remedy == "raise kubernetes.steps.teacher.memory in params.yaml."


def test_what_only_looks_like_lack_of_memory_is_not_asserted(outline):
    assert "unless somebody ended it" in failure(outline, "main: Error (exit code 137)").cause
    assert "unless" not in failure(outline, "OOMKilled (exit code 137)").cause


def test_lack_of_memory_without_a_limit_and_by_default(outline):
    message = "OOMKilled (exit code 137)"
    assert str(failure(outline, message, task="plan")) == (
        "OOMKilled (exit code 137): its memory limit is 4Gi; raise kubernetes.default.memory in params.yaml."
    )
    assert "set kubernetes.steps.distill.memory" in failure(outline, message, task="distill").remedy
    assert "KFP's driver needs more memory" in failure(outline, message, driver=True).remedy


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("pod deleted", "taken away"),
        ("The node was low on resource: memory. Container main was using 9Gi. (exit code 137)",
         "raise kubernetes.steps.teacher.memory"),
        ("The node was low on resource: ephemeral-storage.", "raise kubernetes.steps.teacher.scratch"),
        ('Usage of EmptyDir volume "scratch" exceeds the limit "10Gi".', "raise kubernetes.steps.teacher.scratch"),
        ('Usage of EmptyDir volume "shm" exceeds the limit "1Gi".', "raise kubernetes.steps.teacher.shared_memory"),
        ("Evicted: preempted by a pod of higher priority", "taken away"),
        ("Pod was terminated in response to imminent node shutdown.", "taken away"),
        ("Pod The node had condition: [DiskPressure].", "taken away"),
        ("Pod was rejected: Node didn't have enough resource: memory, requested: 9, used: 1", "a node with room"),
        ("Pod was active on the node longer than the specified deadline", "kubernetes.steps.teacher.timeout"),
    ],
)  # fmt: skip
def test_a_pod_that_was_taken_away(outline, message, remedy):
    """Its log may end with anything, also with the signal's exit code."""
    reason = failure(outline, message, "cliprd: error: stopped by SIGTERM.\n")
    assert reason.cause == message
    assert remedy in reason.remedy


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("x\ncliprd: error: first.\ncliprd: error: last. Do this.\ny\n", "last. Do this."),
        (f"cliprd: error: ours. Do this.\n{FATAL}failed to execute component: exit status 3\n", "ours. Do this."),
        ('ValueError: no\ntime="2026-11-26T22:17:55Z" level=info\nError: exit status 1\n', "ValueError: no"),
        (f"ValueError: no\n{FATAL}failed to execute component: exit status 1\n", "ValueError: no"),
        (f'cliprd: error: old.\n{FATAL}failed to upload output artifact "x": no route\n',
         'failed to upload output artifact "x": no route'),
        (f"{FATAL}first\nI1126 1:1:1.1  2 a.go:1] x\n{FATAL}last\n\tcode: 400\n  id: 7\ngoroutine 1 [running]:\n",
         "last code: 400 id: 7"),
        ("\x1b[31mOSError: [Errno 28] No space left\x1b[0m\n", "OSError: [Errno 28] No space left"),
    ],
)  # fmt: skip
def test_the_reason_in_a_log(outline, log, cause):
    assert failure(outline, "main: Error (exit code 1)", log).cause == cause


def test_our_own_lines_have_their_own_remedy(outline):
    log = "cliprd: error: s3://x/: AccessDenied while downloading. Check AWS_ACCESS_KEY_ID.\n"
    assert failure(outline, "main: Error (exit code 3)", log).remedy == ""


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("main: Error (exit code 3): no bucket. Make it.", "no bucket. Make it."),
        ("Error (exit code 3): no bucket.", "no bucket."),
        ("main: StartError (exit code 128): exec: no bucket", "StartError (exit code 128): exec: no bucket"),
        ("main: Error (exit code 1)", "Error (exit code 1)"),
        ("", ""),
    ],
)
def test_the_message_is_the_reason_where_the_log_has_none(outline, message, cause):
    assert failure(outline, message, "I was here\n").cause == cause
    assert is_known(failure(outline, message)) == ("bucket" in message)


@pytest.mark.parametrize("container", ["wait", "init", "kfp-launcher"])
def test_another_containers_error_is_not_looked_for_in_the_log_of_main(outline, container):
    message = (
        f'{container}: Error (exit code 64): WorkflowTaskResult.argoproj.io "w-1" is invalid: spec: Required value'
    )
    assert failure(outline, message, "ValueError: something handled\n").cause == message


def test_argos_own_message_is_a_reason(outline):
    message = 'WorkflowTaskResult.argoproj.io "w-1" is invalid: outputs: Too long'
    assert failure(outline, message).cause == message
    forbidden = 'workflowtaskresults.argoproj.io is forbidden: User "system:serviceaccount:team-a:x" cannot create'
    assert "create and patch workflowtaskresults in namespace team-a" in failure(outline, forbidden).remedy


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("failed to upload output artifact: AuthorizationHeaderMalformed: wrong region", "region and endpoint"),
        ("failed to download input artifact: AccessDenied: no", "artifact store's credentials"),
        ("failed to upload output artifact: NoSuchBucket", "make the bucket"),
        ("rpc error: code = Unavailable", ""),
    ],
)
def test_what_to_do_about_the_launchers_errors(outline, text, remedy):
    reason = failure(outline, "main: Error (exit code 1)", f"{FATAL}failed to execute component: {text}\n")
    assert reason.cause == f"failed to execute component: {text}"
    assert remedy in reason.remedy
    assert bool(remedy) == bool(reason.remedy)


@pytest.mark.parametrize(
    ("message", "log"),
    [
        ("main: Error (exit code 1)", "RuntimeError: sizes didn't match: Insufficient rows, secret 'x' not found\n"),
        ("main: Error (exit code 3): the upload of an artifact: AccessDenied", ""),
        ("main: Error (exit code 1)", f"{FATAL}rpc error: code = DeadlineExceeded desc = context deadline exceeded\n"),
        ("wait: Error (exit code 1): Post: context deadline exceeded", ""),
    ],
)
def test_words_that_mean_something_else_bring_no_remedy(outline, message, log):
    reason = failure(outline, message, log)
    assert reason.cause
    assert reason.remedy == ""


def test_a_long_reason_keeps_its_ends(outline):
    log = f"{FATAL}KFP driver: driver.Container(pipelineName=x, {'component=y, ' * 100}) failed: no MLMD\n"
    cause = failure(outline, "", log).cause
    assert cause.startswith("KFP driver: driver.Container(pipelineName=x")
    assert cause.endswith(" failed: no MLMD")
    assert len(cause) == 500


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ('ImagePullBackOff: Back-off pulling image "registry.example/cliprd"', f"image {IMAGE} cannot be pulled"),
        ('ErrImagePull: image "argoexec:v4" not found', "image argoexec:v4 cannot be pulled"),
        ("InvalidImageName: x", "cannot be pulled"),
        ('CreateContainerConfigError: secret "s3" not found', "make the secret in namespace team-a"),
        ("CreateContainerConfigError: couldn't find key id in Secret team-a/s3", "add the key to the secret"),
        ('CreateContainerConfigError: configmap "c" not found', "make the ConfigMap"),
        ("CreateContainerConfigError: container has runAsNonRoot and image will run as root", "other than 0"),
        ("Unschedulable: 0/3 nodes: 3 Insufficient nvidia.com/gpu.", "kubernetes.steps.teacher.accelerators"),
        ("Unschedulable: 0/3 nodes: 3 node(s) had untolerated taint {gpu: }", "kubernetes.steps.teacher.tolerations"),
        ("Unschedulable: didn't match Pod's node affinity/selector", "kubernetes.steps.teacher.node_selector"),
        ('Unschedulable: persistentvolumeclaim "pairs" not found', "correct kubernetes.volumes"),
        ('pods "w" is forbidden: exceeded quota: q, requested: limits.cpu=4', "the quota of namespace team-a"),
        ('pods "w" is forbidden: maximum memory usage per Container is 2Gi, but limit is 3Gi', "the LimitRange"),
        ('pods "w" is forbidden: violates PodSecurity "restricted:latest"', "pod-security.kubernetes.io"),
        ('admission webhook "policy.example" denied the request: no', "a rule of theirs refuses the pod"),
        ('pods "w" is forbidden: error looking up service account team-a/x: serviceaccount "x" not found',
         "make the service account"),
    ],
)  # fmt: skip
def test_why_a_pod_cannot_start_and_what_to_do(outline, message, remedy):
    """The same as the reason of a failure: Argo makes an error of what Kubernetes refuses for good."""
    assert trouble(message)
    reason = waiting_reason(step(state="pending", message=message), outline, "team-a")
    assert reason.cause == message
    assert remedy in reason.remedy
    assert remedy in failure(outline, message).remedy or "image" in remedy


@pytest.mark.parametrize("message", ["", "ContainerCreating", "PodInitializing"])
def test_a_pod_that_just_takes_time_is_no_trouble(outline, message):
    assert not trouble(message)
    reason = waiting_reason(step(state="pending", message=message), outline, "team-a")
    assert f"can the cluster pull image {IMAGE}" in reason.remedy


@pytest.mark.parametrize(("phase", "said"), [("Running", "its pod runs"), ("Succeeded", "workflow-controller running")])
def test_a_driver_that_has_begun_or_is_done_waits_for_something_else(outline, phase, said):
    waiting = step(state="starting", phase=phase, driver=True)
    assert said in waiting_reason(waiting, outline, "team-a").remedy


@pytest.mark.parametrize(
    "message",
    [
        "Unschedulable: 1 Insufficient cpu",
        'CreateContainerConfigError: secret "s3" not found',
        "low on resource: memory",
    ],
)
def test_what_params_yaml_does_not_set_for_a_driver_is_not_named(outline, message):
    driver = step(task="", state="starting", message=message, driver=True)
    assert "kubernetes." not in str(waiting_reason(driver, outline, "team-a"))
    assert "kubernetes." not in str(failure_reason(driver, message, "", outline, "team-a"))
