"""Follow a run on a cluster: a line whenever a step's state changes, and at the end why it failed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from cliprd.errors import CliprdError, InputError, RetryableError
from cliprd.kubeflow.client import ENDED, Api
from cliprd.kubeflow.details import steps_of_details
from cliprd.kubeflow.outline import Outline
from cliprd.kubeflow.reasons import Reason, failure_reason, is_known, log_end
from cliprd.kubeflow.run_steps import RunStep, innermost_failure, run_steps
from cliprd.kubeflow.submit import Submission
from cliprd.kubeflow.watch import Printer, not_started, span
from cliprd.kubeflow.workflow import FAILED, Workflow, WorkflowNode, read_workflow

POLL_SECONDS = 5.0
STUCK_SECONDS = 120.0  # a longer wait is reported; then again each time it has doubled
LOST_SECONDS = 600.0  # the server may be away for this long: an upgrade, a port-forward that is restarted


class RunFailed(CliprdError):
    """A run on the cluster ended, and did not succeed."""


def follow(api: Api, run: Any, submission: Submission, *, timeout: float | None) -> None:
    """Wait for the end of a run.

    Args:
        api: the connection.
        run: as returned by `submit`.
        submission: what runs.
        timeout: seconds; None: no limit.

    Raises:
        RunFailed: it did not succeed; names the step and why. RetryableError: not over within the timeout, or the
            server was away for long. InputError: the server refuses us.
    """
    begun = time.monotonic()
    watch = _Watch(api, run.run_id, submission)
    try:
        while True:
            state = watch.look()
            watch.show(state)
            if state in ENDED:
                break
            if timeout is not None and time.monotonic() - begun > timeout:
                raise RetryableError(
                    f"The run is still {state.lower()} after {span(timeout)}; last reported: {watch.last_line}",
                    f"It continues: {api.link('runs', run.run_id)}",
                )
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        print(f"cliprd: the run continues: {api.link('runs', run.run_id)}", file=sys.stderr)
        raise
    watch.end(state)


class _Watch:
    """Looks at a run: its workflow and the logs of its pods."""

    def __init__(self, api: Api, run_id: str, submission: Submission) -> None:
        self._api, self._run_id = api, run_id
        self._outline, self._namespace = Outline(submission), api.namespace or "kubeflow"
        self._printer = Printer(self._outline, self._why, stuck=STUCK_SECONDS, clock=lambda: time.monotonic())
        self._run: Any = None
        self._workflow: Workflow | None = None  # None: only the v2 API's task details are known
        self._steps: Sequence[RunStep] = ()
        self._old_api = True
        self._warned: set[str] = set()
        self._reasons: dict[tuple[str, bool, tuple[int, ...]], Reason] = {}

    @property
    def last_line(self) -> str:
        """What was printed last."""
        return self._printer.last_line

    def look(self) -> str:
        """Read the run and its steps; retries for a while when the server is away. Returns the run's state."""
        lost: float | None = None
        while True:
            try:
                self._run = self._api.client._run_api.run_service_get_run(run_id=self._run_id)
                self._steps = self._read_steps()
                return str(self._run.state or "PENDING")
            except RetryableError as error:
                now = time.monotonic()
                if lost is None:
                    lost = now
                    print(f"cliprd: {error.problem} Retrying.", file=sys.stderr, flush=True)
                if now - lost > LOST_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)

    def show(self, state: str) -> None:
        """Print what is new."""
        self._printer.show(self._steps, self._namespace)
        if state not in ENDED and not any(step.task or not_started(step) for step in self._steps):
            self._printer.show_nothing(self._workflow.message if self._workflow else "")

    def end(self, state: str) -> None:
        """Print that the run succeeded.

        Raises:
            RunFailed: it did not, or a step of it did not.
        """
        name, link = self._run.display_name, f"See {self._api.link('runs', self._run_id)}"
        failed = [step for step in self._steps if step.state == "failed"]
        if state == "SUCCEEDED" and not (failed and self._workflow):
            print(f"run {name}: succeeded")
            return
        stopped = [step.label for step in self._steps if step.state == "canceled"]
        if failed:
            raise RunFailed(f"run {name}: {'ended as succeeded, but ' if state == 'SUCCEEDED' else ''}"
                            f"{self._failure(failed)}", link)  # fmt: skip
        message = " ".join(((self._run.error.message if self._run.error else "") or "").split())
        if state == "CANCELED" or stopped or (self._workflow and self._workflow.stopped):
            during = f" during {', '.join(stopped)}" if stopped else ""
            raise RunFailed(f"run {name}: canceled{during}{f': {message}' if message else ''}.", link)
        message = message or (innermost_failure(self._workflow) if self._workflow else "")
        missing = "no step of it failed" if self._workflow else "no step of it is known to have failed"
        why = f": {message.rstrip('.')}" if message else ""
        raise RunFailed(f"run {name}: {state.lower()}: {missing}{why}.", link)

    def _failure(self, failed: Sequence[RunStep]) -> str:
        """The first failed step, and the names of the others."""
        step = failed[0]
        driver = "" if not step.driver else " in KFP's driver" if step.task else ", a driver of KFP's,"
        attempt = f" in attempt {step.attempt}" if step.attempt > 1 else ""
        reason = self._why(step, step.last_lost)
        known = str(reason) if reason.cause else f"it left no message; {reason.remedy}".rstrip("; ")
        more = f" Also failed: {', '.join(other.label for other in failed[1:])}." if failed[1:] else ""
        return f"step {step.label}{driver} failed{attempt}: {known.rstrip('.')}.{more}"

    def _why(self, step: RunStep, pod: WorkflowNode | None) -> Reason:
        """Why a pod of a step failed, or where to look if nothing says it."""
        key = (step.label, step.driver, pod.turn if pod else ())
        if key not in self._reasons:
            self._reasons[key] = self._read_reason(step, pod)
        return self._reasons[key]

    def _read_reason(self, step: RunStep, pod: WorkflowNode | None) -> Reason:
        message = pod.message if pod and pod.phase in FAILED and pod.message else ""
        if not message and pod is step.node:
            message = step.message
        if not message and pod and pod.exit_code not in ("", "0"):
            message = f"Error (exit code {pod.exit_code})"
        log, where = "", " in the UI: the v2 API gives no reason"
        if pod and pod.pod:
            where = f": kubectl -n {self._namespace} logs {pod.pod} -c main"
            try:
                log = self._api.text(f"/apis/v1alpha1/runs/{self._run_id}/nodes/{pod.pod}/log")
            except CliprdError as error:
                where = f"{where} (the API does not give it: {error.problem.rstrip('.')})"
        reason = failure_reason(step, message, log, self._outline, self._namespace)
        if is_known(reason) or (pod and not pod.pod):
            return reason
        last = f", which ends with {log_end(log)[:200]!r}" if log_end(log) else ""
        return Reason(reason.cause, f"look at its log{last}{where}")

    def _read_steps(self) -> list[RunStep]:
        self._workflow = self._read_workflow()
        if self._workflow is not None:
            return run_steps(self._workflow, self._outline)
        details = (self._run.run_details.task_details if self._run.run_details else None) or []
        return steps_of_details(details, self._outline)

    def _read_workflow(self) -> Workflow | None:
        """The workflow, which only the v1 API has; None where it does not give the nodes."""
        if not self._old_api:
            return None
        without = "the v1 API, which has reasons, attempts and iterations, gives no workflow"
        try:
            answer = self._api.get(f"/apis/v1beta1/runs/{self._run_id}")
        except RetryableError:
            raise
        except CliprdError as error:
            self._old_api = False  # a gateway that lets only v2 through
            self._warn(f"{without}: {error.problem}")
            return None
        try:
            manifest = answer["pipeline_runtime"].get("workflow_manifest")
            workflow = read_workflow(json.loads(manifest)) if manifest else Workflow(())
        except InputError as error:
            self._warn(f"{without}: {error.problem}")
            return None
        except (KeyError, TypeError, ValueError, AttributeError):
            self._warn(f"{without} in its answer.")
            return None
        if workflow.offloaded:
            self._warn("Argo keeps this run's nodes in its database: no reasons, attempts and iterations, only states.")
            return None
        self._namespace = self._api.namespace or workflow.namespace or "kubeflow"
        return workflow

    def _warn(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            print(f"cliprd: {line}", file=sys.stderr, flush=True)
