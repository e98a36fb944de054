"""What `--wait` prints of a run: each change of a step once, why a pod failed, and what keeps one waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cliprd.kubeflow.outline import Outline
from cliprd.kubeflow.reasons import Reason, trouble, waiting_reason
from cliprd.kubeflow.run_steps import RunStep
from cliprd.kubeflow.workflow import WorkflowNode
from cliprd.names import visible


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def not_started(step: RunStep) -> bool:
    """Whether a step, or a driver of KFP's that is no step's, has not started yet."""
    return step.state in ("pending", "starting") and bool(step.task or (step.node and step.node.phase == "Pending"))


@dataclass
class _Seen:
    state: str
    since: float
    report_after: float
    trouble: str = ""

    def due(self, waited: float) -> bool:
        """Whether the wait is to be reported now."""
        if waited < self.report_after:
            return False
        self.report_after *= 2
        return True


class Printer:
    """Prints what is new.

    Args:
        outline: the pipeline.
        why: gives the reason for which a pod of a step failed.
        stuck: seconds after which a wait is reported; then again each time it has doubled.
        clock: seconds, from any time on.

    Attributes:
        last_line: what was printed last.
    """

    def __init__(
        self,
        outline: Outline,
        why: Callable[[RunStep, WorkflowNode | None], Reason],
        *,
        stuck: float,
        clock: Callable[[], float],
    ) -> None:
        self._outline, self._why = outline, why
        self._stuck, self._clock = stuck, clock
        self._seen: dict[str, _Seen] = {}
        self._lost: set[tuple[str, bool, tuple[int, ...]]] = set()
        self.last_line = "no step has begun."

    def show(self, steps: Sequence[RunStep], namespace: str) -> None:
        """Print the changes since the last call.

        Args:
            steps: all that have begun.
            namespace: of their pods.
        """
        for step in steps:
            self._show_lost(step)
            if step.task or step.state in ("failed", "canceled", "retrying"):
                self._show_state(step)
            if not_started(step):
                self._show_wait(step, namespace)

    def show_nothing(self, message: str) -> None:
        """Print, when it is due, that no step has begun.

        Args:
            message: Argo's, about the whole.
        """
        seen = self._seen.setdefault("", self._new(""))
        waited = self._clock() - seen.since
        if seen.due(waited) or message not in ("", seen.trouble):
            seen.trouble = message
            why = message or "is Argo's workflow-controller running, and has the namespace quota?"
            self._print(f"no step{f' after {span(waited)}' if waited >= 1 or not message else ' yet'}: {why}")

    def _show_state(self, step: RunStep) -> None:
        again = step.attempt > 1 and step.state in ("pending", "running", "retrying")
        text = f"{step.state}, attempt {step.attempt}" if again else step.state
        seen = self._seen.get(step.label)
        if seen is not None and seen.state == text:
            return
        self._seen[step.label] = self._new(text)
        took = f" after {span(step.seconds)}" if step.seconds is not None else ""
        at_last = f", attempt {step.attempt}" if step.final and step.attempt > 1 else ""
        why = str(self._why(step, step.last_lost)) if step.state == "failed" else step.backoff
        self._print(f"{step.label}: {text}{took}{at_last}{f': {why}' if why else ''}")

    def _show_lost(self, step: RunStep) -> None:
        """The attempts that failed and are, or may be, repeated."""
        repeated = step.lost[:-1] if step.state in ("failed", "canceled") else step.lost
        for number, pod in repeated:
            key = (step.label, step.driver, pod.turn)
            reason = Reason("") if key in self._lost else self._why(step, pod)
            self._lost.add(key)
            if reason.cause:
                whose = "attempt" if not step.driver or not step.task else "attempt of its driver"
                self._print(f"{step.label}: {whose} {number} failed: {reason}")

    def _show_wait(self, step: RunStep, namespace: str) -> None:
        seen = self._seen.setdefault(step.label, self._new(step.state))
        kind, waited = trouble(step.message), self._clock() - seen.since
        if not seen.due(waited) and kind in ("", seen.trouble):
            return
        seen.trouble = kind or seen.trouble  # reported at once, and once
        duration = f" for {span(waited)}" if waited >= 1 else ""
        again = f", attempt {step.attempt}" if step.attempt > 1 else ""
        pod = step.node.pod if step.node else ""
        hint = f" See: kubectl -n {namespace} describe pod {pod}" if pod else ""
        reason = str(waiting_reason(step, self._outline, namespace))
        stop = "" if reason.endswith((".", "?")) else "."
        self._print(f"{step.label}: {step.state}{again}{duration}: {reason}{stop}{hint}")

    def _new(self, state: str) -> _Seen:
        return _Seen(state, self._clock(), self._stuck)

    def _print(self, line: str) -> None:
        self.last_line = visible(line)
        print(self.last_line, flush=True)
