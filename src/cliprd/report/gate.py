"""The arithmetic of the gate: is a candidate better than the champion, and nowhere much worse?

Everything is an interval of a paired difference, candidate − champion, over the same examples: a bootstrap over the
examples of every task (`aggregate.draw`). The tasks stay as they are. The candidate is better if the whole central
interval of the difference of means over tasks, of the confidence asked for, lies above zero. Where there is no true
difference that happens with a chance of (1 − confidence) / 2, 2.5 % at 0.95. A guarded score may be worse by a margin:
its interval must end above −margin.

With several seeds a side the question is whether the *recipe* is better, so training noise belongs to the interval.
Resampling three seeds would give an interval that is far too narrow (with three, one resample in nine at each end is
one seed thrice). The spread of the seeds' means, pooled over both sides, comes in as Student's t with the seeds'
degrees of freedom instead, which holds its rate for two seeds as for many. A side with one seed borrows the other's
spread. With one seed on both sides the interval covers the examples only: it speaks of these two students.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprd.report import aggregate
from cliprd.report.markdown import literal, text

Array = NDArray[np.float64]
Side = Mapping[str, Array]  # name → [seeds, examples]

RESAMPLES = 10_000  # ends of a 95 % interval to about a fiftieth of its width
SEED = 0
FINER = 101


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A guarded figure, candidate against champion.

    Attributes:
        name: what is guarded, such as a task's name or `parameters`.
        kind: `tasks`, `fidelity`, `latency` or `size`, as in `promote.margins`.
        value, low, high: candidate − champion with its interval (tasks, fidelity), or the share by which it is more
            (latency, size; without an interval). None where it cannot be told.
        margin: by how much it may be worse, in the same unit.
        ok: whether it is not worse by more; None where it cannot be told, which `note` explains and refuses nothing.
        note: what is to be said of it.
    """

    name: str
    kind: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float
    ok: bool | None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return asdict(self)


def differences(candidate: Side, champion: Side, confidence: float, *, seed: int = SEED) -> dict[str, Any]:
    """`{"mean": I, "tasks": {name: I}}`, I being `{"value", "low", "high"}` of candidate − champion.

    Args:
        candidate, champion: the same names with the same examples in the same order, and a row a seed.
        confidence: of the central intervals.
        seed: of the resampling.
    """
    return several({"": candidate}, {"": champion}, confidence, seed=seed)[""]


def several(
    candidates: Mapping[str, Side], champions: Mapping[str, Side], confidence: float, *, seed: int = SEED
) -> dict[str, dict[str, Any]]:
    """`differences` of many pairs over examples of the same number, at the cost of one (for simulations)."""
    # A resampled difference of means is the resampled mean of the differences.
    paired = {
        name: {
            task: rows.mean(axis=0, keepdims=True) - champions[name][task].mean(axis=0, keepdims=True)
            for task, rows in side.items()
        }
        for name, side in candidates.items()
    }
    found = {}
    for name, drawn in aggregate.draw(paired, resamples=RESAMPLES, seed=seed).items():
        noise = _training_noise(candidates[name], champions[name], seed)
        intervals = {
            key: aggregate.interval(value, drawn.resampled[key] + noise.get(key, 0.0), confidence)
            for key, value in drawn.value.items()
        }
        mean = intervals.pop(None)
        found[name] = {"mean": mean, "tasks": intervals}
    return found


def _training_noise(candidate: Side, champion: Side, seed: int) -> dict[str | None, Array]:
    """Draws of the error that the choice of training seeds makes in each difference; empty with one seed a side."""
    sides = [{task: values.mean(axis=1) for task, values in side.items()} for side in (candidate, champion)]
    for side in sides:
        side[None] = np.mean(list(side.values()), axis=0)  # type: ignore[index]
    counts = [len(side[None]) for side in sides]  # type: ignore[index]
    freedom = sum(counts) - 2
    if freedom == 0:
        return {}
    student = _student(freedom, seed)
    scale = np.sqrt(sum(1 / count for count in counts) / freedom)
    return {
        key: student * scale * np.sqrt(sum(float(((side[key] - side[key].mean()) ** 2).sum()) for side in sides))
        for key in sides[0]
    }


@functools.cache
def _student(freedom: int, seed: int) -> Array:
    """`[RESAMPLES]` draws of Student's t in random order, spread evenly over it: its tails are too long for a few."""
    generator = np.random.default_rng((seed, freedom))
    drawn = np.sort(generator.standard_t(freedom, size=(RESAMPLES * FINER)))
    return np.asarray(generator.permutation(drawn[FINER // 2 :: FINER]))


def not_worse(name: str, kind: str, difference: Mapping[str, float], margin: float) -> Guard:
    """A score whose interval must end above −margin."""
    value, low, high = (difference[key] for key in ("value", "low", "high"))
    return Guard(name=name, kind=kind, value=value, low=low, high=high, margin=margin, ok=low > -margin)


def not_more(name: str, kind: str, candidate: float, champion: float, margin: float) -> Guard:
    """A cost that may be more than the champion's by the share `margin`."""
    if not champion > 0:
        return untold(name, kind, margin, "the champion's is not positive")
    share = round(candidate / champion - 1, 6)
    return Guard(name=name, kind=kind, value=share, margin=margin, ok=share <= margin)


def untold(name: str, kind: str, margin: float, why: str) -> Guard:
    """A guard that cannot be told; it refuses nothing."""
    return Guard(name=name, kind=kind, margin=margin, ok=None, note=why)


def points(interval: Mapping[str, float]) -> str:
    """`+1.70 [+0.60, +2.80]`: a difference of shares in points."""
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def markdown(decision: Mapping[str, Any]) -> str:
    """`decision.md`: the word, the reason and every figure."""
    lines = [f"**{'Promote' if decision['passed'] else 'Do not promote'}**: {text(decision['reason'])}.", ""]
    if "mean" in decision:
        lines += [
            f"Candidate − champion (version {text(decision['champion'])}), points, "
            f"protocol {literal(decision['protocol'])}; "
            f"brackets: {100 * decision['confidence']:g}% intervals over {text(decision['covers'])}.",
            "",
            "| score | difference | may be worse by | |",
            "|---|---:|---:|---|",
            f"| **mean over tasks** | {points(decision['mean'])} | | |",
        ]
    for guard in decision.get("guards", ()):
        word = {True: "ok", False: "**too much worse**", None: "not told"}[guard["ok"]]
        lines.append(
            f"| {guard['kind']}: {text(guard['name'])} | {_figure(guard)} | {_margin(guard)} | {_also(word, guard)} |"
        )
    lines += [f"\n{text(note)}" for note in decision.get("notes", ())]
    return "\n".join(lines).rstrip() + "\n"


def _figure(guard: Mapping[str, Any]) -> str:
    if guard["value"] is None:
        return ""
    if guard["kind"] == "tasks":
        return points(guard)
    if guard["low"] is None:
        return f"{100 * guard['value']:+.1f} %"
    return f"{guard['value']:+.3f} [{guard['low']:+.3f}, {guard['high']:+.3f}]"


def _margin(guard: Mapping[str, Any]) -> str:
    scale, unit = {"tasks": (100, " points"), "fidelity": (1, "")}.get(guard["kind"], (100, " %"))
    return f"{scale * guard['margin']:g}{unit}"


def _also(word: str, guard: Mapping[str, Any]) -> str:
    return f"{word}: {text(guard['note'])}" if guard["note"] else word
