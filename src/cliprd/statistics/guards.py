"""Guarded figures of the gate: a candidate that is better in the mean must be nowhere much worse than the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


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
