"""Prints a lineage as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cliprd.artifact import manifest
from cliprd.formatting import flat
from cliprd.lineage.common import short
from cliprd.names import visible

SHOWN = 50  # sources in the text


def describe(tree: Mapping[str, Any]) -> str:
    """The tree as text for a terminal, from the scores back to the raw shards."""
    return "\n".join(map(visible, _lines(tree))) + "\n"


def _lines(tree: Mapping[str, Any]) -> Iterator[str]:
    facts, shards, cache = tree["facts"], tree["inputs"]["shards"], tree["inputs"]["cache"]
    teacher = cache["inputs"]["teacher"]
    yield f"student {facts.get('run', '')}: {facts.get('steps')} steps, {facts.get('samples_seen')} samples seen"
    for task, protocols in sorted(tree.get("scores", {}).items()):
        for protocol, scores in sorted(protocols.items()):
            values = "  ".join(f"{metric} {value:.4f}" for metric, value in sorted(scores.items()))
            yield f"├─ score {task}, {protocol}: {values}"
    yield f"├─ params {_values(manifest.in_force(tree['params'], facts).get('distill', {}))}"
    yield f"├─ code {tree['code']}: " + "  ".join(f"{part} {short(sha)}" for part, sha in tree["code_parts"].items())
    yield f"├─ cache {short(cache['fingerprint'])}: {_values(cache['params'].get('cache', {}))}"
    yield f"│  ├─ augmentation {_values(cache['params'].get('augmentation', {}))}"
    yield f"│  └─ teacher {teacher['facts'].get('id', '')} {short(teacher['fingerprint'])}, weights sha256 " + short(
        str(teacher["facts"].get("weights_sha256", "?"))
    )
    sources: Sequence[Mapping[str, Any]] = shards["sources"]
    yield (
        f"└─ shards {short(shards['fingerprint'])}: {shards['facts']['samples']} samples in "
        f"{shards['facts']['shards']} shards, {shards['facts']['rejected']} set aside; of {shards['params']['path']}:"
    )
    hidden = len(sources) - SHOWN
    for number, part in enumerate(sources[:SHOWN], 1):
        corner = "└" if number == len(sources) else "├"
        yield f"   {corner}─ {part['name']} {short(part['fingerprint'])}: {part['samples']} samples"
    if hidden > 0:
        yield f"   └─ … and {hidden} more (--json has them all)"


def _values(section: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in flat(section) if value not in (None, {}))
