"""A retraining from its plan to its report, with any runner."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from cliprd.errors import CliprdError, MachineError
from cliprd.files import alone, atomic_write, sweep_beside, write_json
from cliprd.names import visible
from cliprd.params import Params
from cliprd.promotion import champion
from cliprd.promotion.promote import follow
from cliprd.retrain import report as reports
from cliprd.retrain.proposal import Plan, note, plan
from cliprd.retrain.scores import side_by_side

JSON, TEXT = "report.json", "report.md"
LOCK = Path(".cliprd/retrain.lock")


@dataclass(frozen=True)
class Judged:
    """The result of a training.

    Attributes:
        decision: of the gate.
        benchmarks: the candidate's scores, where they are on this machine.
        version: of the candidate where it was kept: promoted, or refused.
        pushed: where its files went, for the report.
    """

    decision: Mapping[str, Any]
    benchmarks: Sequence[Path]
    version: str | None
    pushed: str | None = None


class Runner(Protocol):
    """What trains: DVC or Kubeflow."""

    name: str

    def would_run(self, planned: Plan) -> list[str]:
        """Steps that a training would run, as far as that is known beforehand; none: it was done before."""

    def retrain(self, planned: Plan, *, promote: bool, output: Path, asked_by: Mapping[str, str]) -> Judged:
        """Train, ask the gate, and promote or refuse, the champion last.

        Args:
            planned: the plan.
            promote: False: ask the gate, and leave champion and registry alone.
            output: folder for what the gate writes.
            asked_by: `{"who", "what"}`.
        """


def retrain(
    params: Params,
    runner: Runner,
    *,
    output: Path,
    asked_by: Mapping[str, str],
    promote: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Do what the plan says, and write `report.json` and `report.md` into `output`.

    Args:
        params: the tree.
        runner: what trains.
        output: folder of the report.
        asked_by: `{"who", "what"}`.
        promote: False: train and gate only.
        facts: of the report: `git`.

    Returns:
        The report (see `cliprd.retrain.report`).

    Raises:
        MachineError: a retraining is running already. Others: of the training, the gate or the promotion; the
        report then has the error too, and the champion is as it was.
    """
    with _alone():
        for name in (JSON, TEXT):
            sweep_beside(output / name)
            (output / name).unlink(missing_ok=True)  # of an earlier run: where this one is killed, none is left
        report = _begun(params, runner.name, asked_by, facts)
        try:
            planned = plan(params)
            report |= _planned(planned)
            if not planned.train:
                return _written(output, {**report, "ending": "nothing"})
            print(visible(f"retrain: {planned.why}"), flush=True)
            judged = runner.retrain(planned, promote=promote, output=output, asked_by=asked_by)
        except CliprdError as error:
            _written(output, {**report, "ending": "failed", "why": str(error)})
            raise
        reigning = planned.champion.benchmarks if planned.champion else ()
        decision = judged.decision
        if promote and decision["verdict"] == "champion":
            ending = "nothing"
        elif promote:
            ending = "promoted" if decision["passed"] else "refused"
        else:
            ending = "passed" if decision["passed"] else "refused"
        outcome = {
            "ending": ending,
            "why": decision["reason"],
            "decision": dict(decision),
            "scores": side_by_side(params, judged.benchmarks, reigning) if judged.benchmarks else None,
            "version": judged.version,
            "pushed": judged.pushed,
        }
        return _written(output, {**report, **outcome})


@contextlib.contextmanager
def _alone(file: Path = LOCK) -> Iterator[None]:
    """One retraining at a time in a repository; across machines that is for CI's concurrency group to see to.

    Raises:
        MachineError: another process is retraining here, or the lock cannot be made.
    """

    def busy(holder: str) -> MachineError:
        return MachineError(f"A retraining is running here already: {holder}.", "Wait for its end.")

    try:
        with alone(file, busy):
            yield
    except OSError as error:
        if error.filename != str(file):
            raise
        raise MachineError(f"{file} cannot be made: {error.strerror}.", "Fix its permissions.") from error


def dry_run(
    params: Params, runner: Runner, *, asked_by: Mapping[str, str], facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The report of what `retrain` would do now; nothing is changed, and none is written."""
    planned = plan(params)
    report = {**_begun(params, runner.name, asked_by, facts), **_planned(planned)}
    if not planned.train:
        return {**report, "ending": "nothing"}
    return {**report, "ending": "planned", "stages": runner.would_run(planned)}


def settle(
    params: Params,
    planned: Plan,
    student: Path,
    benchmarks: Sequence[Path],
    decision: Mapping[str, Any],
    asked_by: Mapping[str, str],
) -> str | None:
    """Follow the gate, and note that these inputs gave no new champion: they are not trained again every night.

    Returns:
        The candidate's version.
    """
    version = follow(params, student, benchmarks, decision, asked_by)
    if not decision["passed"]:
        why = {"champion": decision["champion"], "reason": decision["reason"], "version": version}
        champion.note(params.promote.champion, params, note(planned.judged_as), why)
    return version


def _begun(params: Params, runner: str, asked_by: Mapping[str, str], facts: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "schema": reports.SCHEMA,
        "runner": runner,
        "method": params.retrain.method,
        "seeds": list(params.retrain.seeds),
        "place": params.promote.champion,
        "asked_by": dict(asked_by),
        "git": {},
        **(facts or {}),
        "why": "",
        "inputs": None,
        "champion": None,
        "changes": [],
        "notes": [],
        "stages": None,
        "decision": None,
        "scores": None,
        "version": None,
        "pushed": None,
    }


def _planned(planned: Plan) -> dict[str, Any]:
    return {
        "why": planned.why,
        "inputs": planned.inputs,
        "champion": planned.champion.version if planned.champion else None,
        "changes": [asdict(change) for change in planned.changes],
    }


def _written(output: Path, report: dict[str, Any]) -> dict[str, Any]:
    report = json.loads(json.dumps(report))
    write_json(output / JSON, report)
    with atomic_write(output / TEXT, "w") as file:
        file.write(reports.render(report))
    return report
