"""A job's life as its engine's controllers write it into `status`, and what the follower makes of it.

Written down from the controllers' sources; no controller ran.

Trainer 2.0.1, 2.1.0, 2.2.0, 2.3.0 (kubeflow/trainer)
    pkg/controller/trainjob_controller.go                Suspended, deadline
    pkg/runtime/framework/plugins/jobset/jobset.go       Complete and Failed, of the JobSet; jobsStatus from 2.1 on
    pkg/constants/constants.go                           messages
JobSet 0.8.2, 0.10.1, 0.11.1, 0.12.0 (kubernetes-sigs/jobset), one for each of those
    pkg/constants/constants.go, pkg/controllers/failure_policy.go
Training Operator 1.9.3 (kubeflow/trainer, tag v1.9.3)
    pkg/util/status.go                                   order, and what a condition does to others
    pkg/controller.v1/common/job.go                      suspension, limits
    pkg/controller.v1/common/pod.go, pkg/controller.v1/pytorch/pytorchjob_controller.go
"""

import itertools
import time

import pytest
from kubernetes import client

from cliprd.errors import InputError, RetryableError
from cliprd.kubeflow.trainjob import watch
from cliprd.kubeflow.trainjob.cluster import Cluster
from tests.kubeflow.trainjob import clusters

NAME = "cliprd-clip-kd-0-0123456789"


def condition(kind: str, status: str, reason: str, message: str) -> dict:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def trainjob(*conditions: dict, **status: object) -> dict:
    metadata = {"name": NAME, "uid": "1"}
    return {"kind": "TrainJob", "metadata": metadata, "status": {"conditions": [*conditions], **status}}


def pytorchjob(*conditions: dict) -> dict:
    # `Created` is set when the operator first sees the job, and stays.
    created = condition("Created", "True", "PyTorchJobCreated", f"PyTorchJob {NAME} is created.")
    return {"kind": "PyTorchJob", "metadata": {"name": NAME}, "status": {"conditions": [created, *conditions]}}


def node(**counts: int) -> dict:
    """An entry of jobsStatus: Trainer 2.1 and newer; before, a running TrainJob has no status at all."""
    return {"name": "node", **dict.fromkeys(("active", "failed", "ready", "succeeded", "suspended"), 0), **counts}


SUSPENDED = condition("Suspended", "True", "Suspended", "TrainJob is suspended")
RESUMED = condition("Suspended", "False", "Resumed", "TrainJob is resumed")
COMPLETE = condition("Complete", "True", "AllJobsCompleted", "jobset completed successfully")
# Whatever ended the Job, its backoff limit or its failure policy: the JobSet names none.
FAILED_JOBS = condition(
    "Failed", "True", "FailedJobs", f"jobset failed due to one or more job failures (first failed job: {NAME}-node-0)"
)
MAX_RESTARTS = condition("Failed", "True", "ReachedMaxRestarts", "jobset failed due to reaching max number of restarts")
DEADLINE = condition("Failed", "True", "DeadlineExceeded", "TrainJob exceeded its active deadline")  # 2.2 and newer

RUNNING = condition("Running", "True", "PyTorchJobRunning", f"PyTorchJob {NAME} is running.")
RAN = {**RUNNING, "status": "False"}  # by Succeeded and Failed, which keep reason and message
RESTARTING = condition(
    "Restarting", "True", "PyTorchJobRestarting", f"job {NAME} is restarting because worker replica(s) failed."
)  # in place of Running
HELD = condition("Running", "False", "PyTorchJobSuspended", f"PyTorchJob {NAME} is suspended.")
PAUSED = condition("Suspended", "True", "PyTorchJobSuspended", f"PyTorchJob {NAME} is suspended.")
CONTINUED = condition("Suspended", "False", "PyTorchJobResumed", f"PyTorchJob {NAME} is resumed.")
SUCCEEDED = condition("Succeeded", "True", "PyTorchJobSucceeded", f"PyTorchJob {NAME} is successfully completed.")
LIMIT = condition(
    "Failed", "True", "PyTorchJobFailed", f"Job {NAME} has failed because it has reached the specified backoff limit"
)
TOO_LONG = condition(
    "Failed", "True", "PyTorchJobFailed", f"Job {NAME} has failed because it was active longer than specified deadline"
)


@pytest.mark.parametrize(
    ("job", "ended", "state"),
    [
        ({"kind": "TrainJob", "metadata": {"name": NAME}}, "", "created"),
        (trainjob(jobsStatus=[node(active=1)]), "", "created"),
        (trainjob(jobsStatus=[node(active=1, ready=1)]), "", "created"),
        (trainjob(SUSPENDED, jobsStatus=[node(suspended=1)]), "", "suspended (suspended)"),
        (trainjob(RESUMED, jobsStatus=[node(active=1)]), "", "created"),
        (trainjob(COMPLETE), "succeeded", "complete (alljobscompleted)"),  # 2.0
        (trainjob(RESUMED, COMPLETE, jobsStatus=[node(succeeded=1)]), "succeeded", "complete (alljobscompleted)"),
        (trainjob(FAILED_JOBS), "failed", "failed (failedjobs)"),  # 2.0
        (trainjob(RESUMED, FAILED_JOBS, jobsStatus=[node(failed=1)]), "failed", "failed (failedjobs)"),
        (trainjob(MAX_RESTARTS, jobsStatus=[node(failed=1)]), "failed", "failed (reachedmaxrestarts)"),
        (trainjob(DEADLINE), "failed", "failed (deadlineexceeded)"),
        # The JobSet completed while it was being deleted for the deadline: the student is complete.
        (trainjob(COMPLETE, DEADLINE, jobsStatus=[node(succeeded=1)]), "succeeded", "failed (deadlineexceeded)"),
        (pytorchjob(), "", "created (pytorchjobcreated)"),
        (pytorchjob(RUNNING), "", "running (pytorchjobrunning)"),
        (pytorchjob(RESTARTING), "", "restarting (pytorchjobrestarting)"),
        (pytorchjob(PAUSED), "", "suspended (pytorchjobsuspended)"),
        (pytorchjob(HELD, PAUSED), "", "suspended (pytorchjobsuspended)"),
        (pytorchjob(HELD, CONTINUED), "", "created (pytorchjobcreated)"),
        (pytorchjob(CONTINUED, RUNNING), "", "running (pytorchjobrunning)"),
        (pytorchjob(RAN, SUCCEEDED), "succeeded", "succeeded (pytorchjobsucceeded)"),
        (pytorchjob(CONTINUED, RAN, SUCCEEDED), "succeeded", "succeeded (pytorchjobsucceeded)"),
        (pytorchjob(RAN, LIMIT), "failed", "failed (pytorchjobfailed)"),
        (pytorchjob(RESTARTING, LIMIT), "failed", "failed (pytorchjobfailed)"),
        (pytorchjob(RAN, TOO_LONG), "failed", "failed (pytorchjobfailed)"),
    ],
)
def test_states(job, ended, state):
    assert watch._ended(job) == ended
    assert watch._state(job) == state


class Played:
    """A cluster that answers with one moment after another, the last one for ever."""

    namespace = "default"

    def __init__(self, *moments: tuple) -> None:
        self._moments = itertools.chain(moments, itertools.repeat(moments[-1]))
        self._pods: list = []
        self.removed = 0

    def get(self, tree):
        if not hasattr(self, "_created"):
            return None
        job, self._pods = next(self._moments)
        return job

    def create(self, tree):
        self._created = tree
        return True

    def delete(self, tree):
        self.removed += 1

    def pods(self, tree):
        return self._pods


def pod(code: int, said: str, phase: str = "Failed", name: str = "node-0-0") -> client.V1Pod:
    """A pod whose container has ended: for good, or it waits to be restarted in the pod (phase Running)."""
    over = client.V1ContainerState(
        terminated=client.V1ContainerStateTerminated(exit_code=code, message=f"cliprd: error: {said}", reason="Error")
    )
    waits = client.V1ContainerState(waiting=client.V1ContainerStateWaiting(reason="CrashLoopBackOff"))
    one = client.V1ContainerStatus(
        name="node", image="x", image_id="x", ready=False, restart_count=int(phase == "Running"),
        state=waits if phase == "Running" else over, last_state=over if phase == "Running" else None,
    )  # fmt: skip
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name), status=client.V1PodStatus(phase=phase, container_statuses=[one])
    )


@pytest.fixture
def life(monkeypatch):
    """Follow a job through moments, each its object and its pods."""
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)

    def run(*moments):
        played = Played(*moments)
        return played, lambda: watch.run_job(played, [{"kind": moments[0][0]["kind"], "metadata": {"name": NAME}}])

    return run


LOST = pod(75, "Rank 1 lost contact.")
WRONG = pod(3, "/data/cache is of other shards.")


def test_a_pods_failure_policy_ends_a_trainjob_with_the_pods_error(life):
    """Kubernetes keeps the pod that failed, so that its code is there whichever of both is seen first."""
    for moments in (
        [(trainjob(), []), (trainjob(jobsStatus=[node(active=1)]), [WRONG])],
        [(trainjob(), []), (trainjob(FAILED_JOBS, jobsStatus=[node(failed=1)]), [WRONG])],
    ):
        played, follow = life(*moments)
        with pytest.raises(InputError, match=r"Pod node-0-0: /data/cache is of other shards\."):
            follow()
        assert played.removed


def test_a_trainjobs_limit(life):
    played, follow = life((trainjob(), [LOST]), (trainjob(FAILED_JOBS), [LOST]))
    with pytest.raises(RetryableError, match=r"FailedJobs: jobset failed.*Pod node-0-0: Rank 1 lost contact\."):
        follow()
    assert not played.removed  # the next attempt does it


def test_a_pytorchjobs_limit_after_which_its_pods_are_gone(life):
    """The operator deletes them and then writes `Failed`; whatever `cleanPodPolicy` is."""
    restarted = pod(75, "Rank 1 lost contact.", phase="Running")
    _, follow = life((pytorchjob(RUNNING), [restarted]), (pytorchjob(RAN, LIMIT), []))
    with pytest.raises(RetryableError, match=r"backoff limit\)\. Pod node-0-0: Rank 1 lost contact\."):
        follow()


def test_a_pytorchjobs_wrong_input_is_seen_between_two_restarts(life):
    restarted = pod(3, "/data/cache is of other shards.", phase="Running")
    played, follow = life((pytorchjob(RUNNING), []), (pytorchjob(RUNNING), [restarted]))
    with pytest.raises(InputError, match="of other shards"):
        follow()
    assert played.removed


def test_a_whole_life(life, capsys):
    _, follow = life(
        (trainjob(SUSPENDED), []), (trainjob(RESUMED), []), (trainjob(RESUMED, jobsStatus=[node(active=1)]), [LOST]),
        (trainjob(RESUMED, COMPLETE), [LOST]),
    )  # fmt: skip
    follow()
    lines = [line for line in capsys.readouterr().err.splitlines() if "TrainJob:" in line]
    assert [line.partition("TrainJob: ")[2] for line in lines] == [
        "suspended (suspended)", "created", "complete (alljobscompleted)",
    ]  # fmt: skip


def test_a_job_that_is_being_deleted_is_followed_until_it_is_gone(life):
    leaving = trainjob(jobsStatus=[node(active=1)])
    leaving["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}
    _, follow = life((trainjob(), []), (leaving, []), (None, []))
    with pytest.raises(RetryableError, match="removed by others"):
        follow()


TOO_EARLY = (
    'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: spec.runtimeRef: Invalid value:'
    ' {}: TrainingRuntime.trainer.kubeflow.org "x" not found: specified trainingRuntime must be created before the'
    " TrainJob is created"
)
"""Trainer 2.0 to 2.3, pkg/runtime/core/trainingruntime.go: its webhook looks the runtime up in a cache. The code, 403,
is of controller-runtime's `admission.Denied`."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    with clusters.stand_in() as host:
        yield host, Cluster(clusters.connect(host), "default")


def one_job() -> dict:
    return {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": NAME}, "spec": {}}


@pytest.mark.parametrize("denials", [[TOO_EARLY] * 3, ['trainjobs "x" is forbidden: exceeded quota: jobs, used: 1']])
def test_a_refusal_that_passes_is_waited_for(server, denials):
    host, cluster = server
    clusters.server(host).denials[:] = denials
    assert watch._create(cluster, one_job()) is True
    assert clusters.server(host).objects["trainjobs"]


def test_a_refusal_that_does_not_pass(server, monkeypatch):
    host, cluster = server
    monkeypatch.setattr(watch, "SEEN_SECONDS", 0.1)
    clusters.server(host).denials[:] = [TOO_EARLY] * 1000
    started = time.monotonic()
    with pytest.raises(RetryableError, match="must be created before"):
        watch._create(cluster, one_job())
    assert time.monotonic() - started < 10
    clusters.server(host).denials[:] = ['admission webhook "policy.example" denied the request: label team is missing']
    with pytest.raises(InputError, match="label team is missing"):
        watch._create(cluster, one_job())
