"""`gate`: is a student better than the champion? Both are scored on the same examples; the answer has an interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliprd import manifest, storage
from cliprd.errors import InputError
from cliprd.manifest import Manifest, write_json
from cliprd.params import Params
from cliprd.report import aggregate
from cliprd.report.comparison import primary_outcomes
from cliprd.report.runs import Run
from cliprd.storage import Location
from cliprd.tracking import champion
from cliprd.workspace import Workspace

DECISION = "decision.json"


def run(params: Params, inputs: Mapping[str, Location], output: Location) -> Manifest:
    """Write `decision.json`, `{"passed", "reason", "champion", "mean", "tasks"}`; its first two are also the facts.

    A candidate passes if its mean primary metric over all tasks is higher, with the whole interval of the paired
    difference above zero. The first candidate passes; the champion itself does not.

    Args:
        params: `promote` (champion, confidence) and `compare.protocol` are used.
        inputs: `candidate`, the student's folder of `benchmark`.
        output: folder to write.

    Raises:
        InputError: the champion was scored on other tasks, data or protocols, or either folder is damaged.
    """
    folder = storage.fetch_folder(inputs["candidate"])
    candidate = Run("candidate", folder, manifest.verify(folder, stage="benchmark"))
    held = champion.current(params.promote.champion) if params.promote.champion else None
    fingerprints = {"candidate": candidate.manifest.fingerprint}
    reigning = None
    if held is not None:
        reigning = Run("champion", held.benchmark, manifest.verify(held.benchmark, stage="benchmark"))
        fingerprints["champion"] = reigning.manifest.fingerprint
    sections = params.model_dump(mode="json", include={"promote", "compare"})
    with Workspace(output, stage="gate", params=sections, inputs=fingerprints) as work:
        if work.finished:
            return work.finished
        decision = {"champion": held.version if held else None, **_decide(candidate, reigning, params)}
        write_json(work.path / DECISION, decision)
        return work.finish(facts={"passed": decision["passed"], "reason": decision["reason"]})


def _decide(candidate: Run, reigning: Run | None, params: Params) -> dict[str, Any]:
    if not params.promote.champion:
        return {"passed": False, "reason": "promote.champion names no place for a champion"}
    if reigning is None:
        return {"passed": True, "reason": "there is no champion yet"}
    if reigning.manifest.fingerprint == candidate.manifest.fingerprint:
        return {"passed": False, "reason": "this is the champion"}
    protocol, tasks = params.compare.protocol, candidate.results["tasks"]
    for name in sorted({*tasks, *reigning.results["tasks"]}):
        pair = [run.results["tasks"].get(name) for run in (candidate, reigning)]
        if None in pair or pair[0]["fingerprint"] != pair[1]["fingerprint"]:
            raise InputError(
                f"Task '{name}' is not the same for candidate and champion.", "Benchmark both on the same tasks."
            )
        if any(protocol not in found["protocols"] for found in pair):
            raise InputError(f"Task '{name}' lacks protocol '{protocol}'.", "Add it to benchmark.protocols.")
    settings = candidate.results["bootstrap"]
    outcomes = {
        run.name: {
            name: primary_outcomes(run.tensors("outcomes", name), protocol, task["kind"])[None]
            for name, task in tasks.items()
        }
        for run in (candidate, reigning)
    }
    draws = aggregate.draw(outcomes, resamples=settings["resamples"], seed=settings["seed"])
    found = aggregate.differences(draws["candidate"], draws["champion"], params.promote.confidence)
    mean = found["mean"]
    told = f"{100 * mean['value']:+.2f} points [{100 * mean['low']:+.2f}, {100 * mean['high']:+.2f}] to the champion"
    passed = aggregate.verdict(mean) == "better"
    return {"passed": passed, "reason": told if passed else f"{told}: not surely better", **found}
