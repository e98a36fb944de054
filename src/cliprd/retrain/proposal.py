"""Whether to train: data, parameters and code of now, compared with the champion's lineage."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from cliprd import files, lineage
from cliprd.benchmark import task_set
from cliprd.lineage import Change
from cliprd.params import Params
from cliprd.promotion import champion
from cliprd.promotion.champion import Champion
from cliprd.promotion.registry_package import licence
from cliprd.retrain.wanted import lineage_now


@dataclass(frozen=True)
class Plan:
    """What a retraining would do, and why.

    Attributes:
        champion: who is in use; None before the first.
        changes: since its lineage; none where it has no lineage.
        inputs: digest of all that goes into the retraining: equal ones give the same student.
        judged_as: digest of that and of what it is judged by: equal ones get the same answer of the gate.
        train: whether there is something to do.
        why: in a sentence's part.
    """

    champion: Champion | None
    changes: tuple[Change, ...]
    inputs: str
    judged_as: str
    train: bool
    why: str


def plan(params: Params) -> Plan:
    """Look at data, parameters and code, and at the champion; nothing is changed.

    Raises:
        ParamsError: `promote.champion` names no place.
        InputError: data, tasks, the champion or the file of its licence are missing or damaged.
        RetryableError: a store or server failed.
    """
    place = params.promote.champion
    champion.check_named(place)
    if place.startswith(champion.REGISTRY):
        licence(params.promote.licence)  # of the model card: a missing file is reported before hours of training
    task_set.check(params.benchmark)
    reigning = champion.current(place, params)
    now = lineage_now(trained(params))
    shaping = {name: value for name, value in now.items() if name != "code"}  # `code_parts` has what matters of it
    inputs = files.digest([shaping, list(params.retrain.seeds)])
    judged_as = files.digest([inputs, _judging(params)])
    if reigning is None:
        return Plan(None, (), inputs, judged_as, True, "there is no champion yet")
    if reigning.lineage is None:
        return Plan(reigning, (), inputs, judged_as, True, f"version {reigning.version} has no lineage to compare with")
    changes = tuple(lineage.changes(reigning.lineage, now))
    if not changes:
        why = f"nothing has changed since version {reigning.version}, the champion"
        return Plan(reigning, (), inputs, judged_as, False, why)
    refusal = champion.noted(place, params, note(judged_as))
    if refusal and refusal["champion"] == reigning.version:
        verdict = "gave the champion" if refusal.get("version") == reigning.version else "the gate refused them"
        why = f"the same inputs were trained already, and {verdict}: {refusal['reason']}"
        return Plan(reigning, changes, inputs, judged_as, False, why)
    counts = Counter(change.kind for change in changes)
    why = "changed since the champion: " + ", ".join(f"{kind} ({count})" for kind, count in counts.items())
    return Plan(reigning, changes, inputs, judged_as, True, why)


def trained(params: Params) -> Params:
    """The parameters of the student that is to be promoted: that of the first seed."""
    first = {"method": params.retrain.method, "seed": params.retrain.seeds[0]}
    return params.model_copy(update={"distill": params.distill.model_copy(update=first)})


def note(judged_as: str) -> str:
    """Name of the note, beside the champion, of a refusal."""
    return f"retrain-{judged_as[:20]}/refused"


def _judging(params: Params) -> dict[str, Any]:
    """Parameters by which the same students might get another answer; the tasks are in the lineage, by content."""
    return {
        "promote": params.promote.model_dump(mode="json", exclude={"champion", "licence"}),
        "compare": params.compare.model_dump(mode="json", include={"protocol"}),
        "benchmark": params.benchmark.model_dump(mode="json", exclude={"tasks"}),
    }
