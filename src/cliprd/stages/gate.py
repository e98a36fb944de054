"""`gate`: is a student better than the champion? Both are scored on the same examples; the answer has an interval.

Writes `decision.json` and `decision.md`, and changes nothing anywhere:

    {"passed": bool, "verdict": one of VERDICTS, "reason": text, "champion": version | null,
     "candidate": [fingerprints of the benchmarks], "confidence", "protocol",
     "covers": "examples" | "examples and seeds", "seeds": {"candidate": n, "champion": n},
     "mean": I, "tasks": {TASK: I}, "guards": [{"name", "kind", "value", "low", "high", "margin", "ok", "note"}],
     "notes": [text]}

`I` is `{"value", "low", "high"}`, candidate − champion in shares of 1. The keys from `covers` to `guards` are there
only where the two were compared. docs/promotion.md has the rules. What is wrong with a folder itself is an error; a
whole candidate that cannot be held against a whole champion is refused.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliprd import lineage, manifest, storage
from cliprd.errors import InputError
from cliprd.manifest import Manifest, atomic_write, write_json
from cliprd.params import Margins, Params
from cliprd.report import aggregate
from cliprd.report import gate as arithmetic
from cliprd.report.comparison import primary_outcomes
from cliprd.report.gate import Guard
from cliprd.report.runs import Run, read_json
from cliprd.storage import Location
from cliprd.tracking import champion
from cliprd.workspace import Workspace

DECISION, TEXT = "decision.json", "decision.md"
VERDICTS = (
    "first", "better", "rescored",  # these pass
    "champion", "not better", "worse elsewhere", "not comparable", "withdrawn", "no place",
)  # fmt: skip
FIDELITY = "cross_rank"  # defined whatever the widths, and nearest to what zero-shot scores are made of
COSTS = ("parameters", "image_macs", "text_macs")


def run(params: Params, inputs: Mapping[str, Location], output: Location) -> Manifest:
    """Write the decision; `passed`, `verdict` and `reason` are also the facts.

    Args:
        params: `promote`, `compare.protocol` and `tracking.uri` are used.
        inputs: `candidate`: a student's folder of `benchmark`, or a folder of those of several seeds of one recipe. Any
            further inputs whose names begin with `candidate` are of further seeds.
        output: folder to write.

    Raises:
        InputError: a folder is damaged, is none of a student, or the seeds' benchmarks are not alike; the candidate
            lacks the protocol; the champion is damaged.
        RetryableError: a store or server failed.
    """
    protocol, place = params.compare.protocol, params.promote.champion
    candidates = _opened("candidate", _folders(inputs), protocol)
    held = champion.current(place, params) if place else None
    reigning = _opened("champion", held.benchmarks, None) if held else []
    fingerprints = {run.name: run.manifest.fingerprint for run in (*candidates, *reigning)}
    fingerprints["timings"] = manifest.digest([_timings(run) for run in (*candidates, *reigning)])
    if held:
        fingerprints["version"] = manifest.digest([held.version, held.withdrawn])
    sections = params.model_dump(mode="json", include={"promote", "compare"})
    with Workspace(output, stage="gate", params=sections, inputs=fingerprints) as work:
        if work.finished:
            return work.finished
        decision = {
            "champion": held.version if held else None,
            "candidate": sorted(run.manifest.fingerprint for run in candidates),
            "confidence": params.promote.confidence,
            "protocol": protocol,
            "notes": [],
            **_decide(candidates, reigning, held, params),
        }
        write_json(work.path / DECISION, decision)
        with atomic_write(work.path / TEXT, "w") as file:
            file.write(arithmetic.markdown(decision))
        return work.finish(facts={key: decision[key] for key in ("passed", "verdict", "reason")})


def _folders(inputs: Mapping[str, Location]) -> list[Path]:
    found: list[Path] = []
    for _, location in sorted((name, value) for name, value in inputs.items() if name.startswith("candidate")):
        place = storage.resolve(location)
        if storage.read_bytes(storage.join(place, manifest.NAME)) is not None:
            found.append(storage.fetch_folder(place))
            continue
        there = storage.list_folder(place) if storage.is_s3(place) else _files_below(Path(place))
        parts = sorted(
            name.split("/")[0] for name in there if name.endswith(f"/{manifest.NAME}") and name.count("/") == 1
        )
        if not parts:
            manifest.read(place, stage="benchmark")  # says what is wrong
        found += [storage.fetch_folder(storage.join(place, part)) for part in parts]
    return found


def _files_below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.glob(f"*/{manifest.NAME}")]


def _opened(side: str, folders: Sequence[Path], protocol: str | None) -> list[Run]:
    """The runs of a side in a fixed order, checked to be of one recipe over the same tasks.

    Args:
        protocol: that every task must have been scored by; None: any.
    """
    runs = [Run(side, folder, manifest.verify(folder, stage="benchmark")) for folder in folders]
    for run in runs:
        if run.results["model"]["stage"] != "distill":
            raise InputError(f"{run.folder} is the benchmark of a teacher, not of a student.", "Give a student's.")
        if not run.results["tasks"]:
            raise InputError(f"{run.folder} holds no task.", "Look at benchmark.tasks and benchmark.names.")
        for task, facts in run.results["tasks"].items():
            if protocol and protocol not in facts["protocols"]:
                raise InputError(
                    f"{run.folder}: task '{task}' was not scored by protocol '{protocol}' (compare.protocol).",
                    "Add it to benchmark.protocols and benchmark the student again.",
                )
    first = runs[0]
    for other in runs[1:]:
        if _recipe(other) != _recipe(first):
            raise InputError(
                f"{other.folder} and {first.folder} are not of one recipe, scored on the same tasks.",
                "Give benchmarks of one method's seeds, all made with the same parameters and tasks.",
            )
    students = [run.manifest.inputs.get("model", run.manifest.fingerprint) for run in runs]
    if len(set(students)) < len(students):
        raise InputError(f"The {side}'s benchmarks are of one student twice.", "Give each seed's once.")
    seeds = [seed for run in runs if (seed := run.results["model"].get("seed")) is not None]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"The {side}'s benchmarks are of one seed twice: {seeds}.", "Give each seed's once.")
    order = sorted(range(len(runs)), key=lambda i: (runs[i].results["model"].get("seed") or 0, students[i]))
    names = [side, *(f"{side}-{number}" for number in range(1, len(runs)))]
    return [Run(name, runs[i].folder, runs[i].manifest) for name, i in zip(names, order, strict=True)]


def _recipe(run: Run) -> list[Any]:
    results = run.results
    tasks = {name: [facts["fingerprint"], sorted(facts["protocols"])] for name, facts in results["tasks"].items()}
    return [results["model"].get("method"), results["cost"]["parameters"], tasks, _training(run)]


def _training(run: Run) -> Any:
    """What the training was made of but for its seed, as far as the folder knows: parameters, data, cache, code."""
    file = run.folder / lineage.NAME
    if not file.is_file():
        return None
    tree = read_json(file)
    section = {name: value for name, value in tree["params"].get("distill", {}).items() if name != "seed"}
    inputs = {name: entry["fingerprint"] for name, entry in tree["inputs"].items()}
    code = {part: sha for part, sha in tree.get("code_parts", {}).items() if part != "benchmark"}
    return [{**tree["params"], "distill": section}, inputs, code]


def _timings(run: Run) -> str | None:
    path = run.volatile("speed.json")
    return manifest.sha256_file(path) if path else None


def _students(runs: Sequence[Run]) -> set[str]:
    return {run.manifest.inputs.get("model", run.manifest.fingerprint) for run in runs}


def _decide(
    candidates: Sequence[Run], reigning: Sequence[Run], held: champion.Champion | None, params: Params
) -> dict[str, Any]:
    if not params.promote.champion:
        return _answer("no place", "promote.champion names no place for a champion")
    if held is None:
        return _answer("first", "there is no champion yet")
    if {run.manifest.fingerprint for run in candidates} == {run.manifest.fingerprint for run in reigning}:
        return _answer("champion", "this is the champion")
    if {mark for run in candidates for mark in champion.marks_of(run.folder)} & set(held.withdrawn):
        return _answer(
            "withdrawn", "a rollback took this student out of use; `cliprd rollback --to` its version brings it back"
        )
    if _students(candidates) == _students(reigning):
        return _answer("rescored", "this is the champion's own student, with new scores")
    if why := _incomparable(candidates[0], reigning[0], params.compare.protocol):
        return _answer("not comparable", why)
    return _compare(candidates, reigning, params)


def _answer(verdict: str, reason: str) -> dict[str, Any]:
    return {"passed": VERDICTS.index(verdict) < 3, "verdict": verdict, "reason": reason}


def _incomparable(candidate: Run, reigning: Run, protocol: str) -> str:
    """Why the champion's tasks are not the candidate's; further tasks of the candidate are no reason."""
    remedy = "benchmark the champion's student on the candidate's tasks, promote it with these scores, and gate again"
    for name, theirs in sorted(reigning.results["tasks"].items()):
        ours = candidate.results["tasks"].get(name)
        if ours is None:
            return f"the candidate was not scored on task '{name}', as the champion was; {remedy}"
        if ours["fingerprint"] != theirs["fingerprint"]:
            return f"task '{name}' holds other data than when the champion was scored; {remedy}"
        if protocol not in theirs["protocols"]:
            return f"the champion was not scored on task '{name}' by protocol '{protocol}'; {remedy}"
    return ""


def _compare(candidates: Sequence[Run], reigning: Sequence[Run], params: Params) -> dict[str, Any]:
    confidence, protocol = params.promote.confidence, params.compare.protocol
    tasks = sorted(reigning[0].results["tasks"])

    def outcomes(runs: Sequence[Run]) -> dict[str, Any]:
        return {
            task: np.stack(
                [
                    primary_outcomes(r.tensors("outcomes", task), protocol, r.results["tasks"][task]["kind"])
                    for r in runs
                ]
            )
            for task in tasks
        }

    found = arithmetic.differences(outcomes(candidates), outcomes(reigning), confidence)
    guards = [*_guards(candidates, reigning, found["tasks"], params)]
    word = aggregate.verdict(found["mean"])
    told = f"{arithmetic.points(found['mean'])} points to the champion"
    failed = [guard for guard in guards if guard.ok is False]
    if word != "better":
        answer = _answer("not better", f"{told}: {'surely worse' if word == 'worse' else 'not surely better'}")
    elif failed:
        names = ", ".join(f"{guard.kind} {guard.name}" for guard in failed)
        answer = _answer("worse elsewhere", f"{told}, but it may be worse by more than the margin in: {names}")
    else:
        answer = _answer("better", told)
    several = len(candidates) + len(reigning) > 2
    notes = (
        [f"Not compared, as the champion has no scores of it: {', '.join(further)}."]
        if (further := sorted(set(candidates[0].results["tasks"]) - set(tasks)))
        else []
    )
    if not several:
        notes.append("One seed a side: the intervals speak of these two students; another seed may do otherwise.")
    return {
        **answer,
        **found,
        "covers": "examples and seeds" if several else "examples",
        "seeds": {"candidate": len(candidates), "champion": len(reigning)},
        "guards": [guard.to_dict() for guard in guards],
        "notes": notes,
    }


def _guards(
    candidates: Sequence[Run], reigning: Sequence[Run], tasks: Mapping[str, Mapping[str, float]], params: Params
) -> list[Guard]:
    margins: Margins = params.promote.margins
    guards: list[Guard] = []
    if margins.tasks != "none":
        guards += [arithmetic.not_worse(name, "tasks", found, margins.tasks / 100) for name, found in tasks.items()]
    if margins.fidelity != "none":
        guards.append(_fidelity(candidates, reigning, sorted(tasks), margins.fidelity, params.promote.confidence))
    if margins.latency != "none":
        guards += [_latency(tower, candidates, reigning, margins.latency) for tower in ("image", "text")]
    if margins.size != "none":
        ours, theirs = candidates[0].results["cost"], reigning[0].results["cost"]
        guards += [arithmetic.not_more(name, "size", ours[name], theirs[name], margins.size) for name in COSTS]
    return guards


def _fidelity(
    candidates: Sequence[Run], reigning: Sequence[Run], tasks: Sequence[str], margin: float, confidence: float
) -> Guard:
    """Mean over the tasks on which both were held against one teacher."""
    name, kind = FIDELITY, "fidelity"
    teachers = {(run.results.get("reference") or {}).get("weights_sha256") for run in (*candidates, *reigning)}
    if len(teachers) > 1 and None not in teachers:
        return arithmetic.untold(name, kind, margin, "candidate and champion have different teachers")

    def values(runs: Sequence[Run]) -> dict[str, Any]:
        tensors = {task: [run.tensors("outcomes", task) for run in runs] for task in tasks}
        return {
            task: np.stack([each[f"fidelity.{name}"].astype(np.float64) for each in found])
            for task, found in tensors.items()
            if all(f"fidelity.{name}" in each for each in found)
        }

    ours, theirs = values(candidates), values(reigning)
    if not theirs:
        return arithmetic.untold(name, kind, margin, "the champion was not held against its teacher")
    if absent := sorted(set(theirs) - set(ours)):
        why = f"the candidate was not held against the teacher on {', '.join(absent)}, as the champion was"
        return Guard(name=name, kind=kind, margin=margin, ok=False, note=why)
    common = {task: rows for task, rows in ours.items() if task in theirs}
    if any(common[task].shape[1] != theirs[task].shape[1] for task in common):
        return arithmetic.untold(name, kind, margin, "it was measured over other examples (benchmark.fidelity_samples)")
    found = arithmetic.differences(common, theirs, confidence)["mean"]
    return arithmetic.not_worse(name, kind, found, margin)


def _latency(tower: str, candidates: Sequence[Run], reigning: Sequence[Run], margin: float) -> Guard:
    sides = []
    for runs in (candidates, reigning):
        if damaged := [run.name for run in runs if run.damaged("speed.json")]:
            return arithmetic.untold(tower, "latency", margin, f"the timings of the {damaged[0]} are damaged")
        paths = [path for run in runs if (path := run.volatile("speed.json"))]
        if not paths:
            return arithmetic.untold(tower, "latency", margin, f"the {runs[0].name} was not timed")
        sides.append([read_json(path) for path in paths])
    machines = {(timed["device"], timed["threads"]) for timed in (*sides[0], *sides[1])}
    if len(machines) > 1:
        return arithmetic.untold(tower, "latency", margin, "they were timed on different machines")
    if candidates[0].results["cost"] == reigning[0].results["cost"]:
        why = "both have the same parameters and operations, so a difference would be the machine's"
        return arithmetic.untold(tower, "latency", margin, why)
    ours, theirs = (statistics.median(timed[tower]["latency_ms"]["median"] for timed in side) for side in sides)
    return arithmetic.not_more(tower, "latency", ours, theirs, margin)
