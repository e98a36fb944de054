"""`promote`: ask the gate, then make the student the champion, or keep it with the refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliprd.artifact.folder import fetch_folder
from cliprd.artifact.pointer import resolve
from cliprd.params import Params
from cliprd.promotion import champion, gate, package
from cliprd.storage import Location


@dataclass(frozen=True)
class PromotionResult:
    """The result of `promote`.

    Attributes:
        decision: of the gate.
        version: of the candidate where it was kept; None in a dry run, and without a place.
        promoted: whether it is the champion now, or was already.
    """

    decision: Mapping[str, Any]
    version: str | None
    promoted: bool


def promote(
    params: Params,
    student: Location,
    benchmarks: Sequence[Location],
    output: Location,
    *,
    asked_by: Mapping[str, str],
    dry_run: bool = False,
) -> PromotionResult:
    """Ask the gate about `student`, and follow it.

    Args:
        params: `promote`, `compare` and `tracking` are used.
        student: folder of `distill`.
        benchmarks: folders of `benchmark`: of the student, and of further seeds of its recipe.
        output: folder of the gate's decision.
        asked_by: `{"who", "what"}` (`champion.asker`).
        dry_run: ask the gate only.

    Raises:
        InputError: student and benchmarks do not belong together; nothing was decided or written.
        InputError, ParamsError, RetryableError: of `gate.run`, `champion.publish` and `champion.refuse`.
    """
    decision = judge(params, student, benchmarks, output)
    already = decision["verdict"] == "champion"
    if dry_run:
        return PromotionResult(decision, decision["champion"] if already else None, already)
    version = follow(params, student, benchmarks, decision, asked_by)
    return PromotionResult(decision, version, already or decision["passed"])


def judge(params: Params, student: Location, benchmarks: Sequence[Location], output: Location) -> dict[str, Any]:
    """Ask the gate about a student; returns its decision. Arguments and errors as of `promote`."""
    package.check(resolve(student), [fetch_folder(folder) for folder in benchmarks])
    names = ["candidate", *(f"candidate-{number:04d}" for number in range(1, len(benchmarks)))]
    gate.run(params, dict(zip(names, benchmarks, strict=True)), output)
    decision: dict[str, Any] = json.loads((fetch_folder(output) / gate.DECISION).read_text(encoding="utf-8"))
    return decision


def follow(
    params: Params,
    student: Location,
    benchmarks: Sequence[Location],
    decision: Mapping[str, Any],
    asked_by: Mapping[str, str],
) -> str | None:
    """Promote the student, or keep it with the gate's refusal. Arguments and errors as of `promote`.

    Returns:
        The student's version; None where it is not kept now: there is no place, or it was kept when it was promoted,
        before a rollback took it out of use.
    """
    place, verdict = params.promote.champion, decision["verdict"]
    if verdict == "champion":
        champion.tidy(place, params)
        return str(decision["champion"])
    if verdict in ("withdrawn", "no place"):
        return None
    act = champion.publish if decision["passed"] else champion.refuse
    folders = [fetch_folder(folder) for folder in benchmarks]
    return act(place, params, fetch_folder(student), folders, decision, asked_by)
