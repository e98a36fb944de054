"""`gate`: is a student better than the champion? Both are scored on the same examples; the answer has an interval.

Writes `decision.json` (docs/formats.md) and `decision.md`, and changes nothing anywhere. The rules are in
docs/promotion.md. A damaged or unsuitable folder is an error; a candidate that cannot be compared with the champion is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cliprd import files, lineage, storage
from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.pointer import resolve
from cliprd.artifact.workspace import Workspace
from cliprd.errors import InputError, ParamsError
from cliprd.files import atomic_write, write_json
from cliprd.params import Params
from cliprd.promotion import champion as champions
from cliprd.promotion.guards import guards
from cliprd.promotion.package import marks_of
from cliprd.report import decision as report
from cliprd.report import verdicts
from cliprd.report.runs import Run
from cliprd.report.standing import side, standing
from cliprd.report.table import left_out
from cliprd.statistics import aggregate
from cliprd.statistics.aggregate import SEEDS
from cliprd.statistics.bootstrap import Settings
from cliprd.storage import Location

DECISION, TEXT = "decision.json", "decision.md"
VERDICTS = (
    "first", "better", "rescored",  # these pass
    "champion", "not better", "worse elsewhere", "not above guessing", "not comparable", "withdrawn", "no place",
)  # fmt: skip
ALLOW = "promote.allow_guessing"


@dataclass(frozen=True)
class _Comparison:
    """What the gate decides on: benchmarks of candidate and champion, one a seed; the champion, if there is one."""

    candidates: Sequence[Run]
    reigning: Sequence[Run]
    champion: champions.Champion | None
    params: Params
    settings: Settings


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
    champion = champions.current(place, params) if place else None
    reigning = _opened("champion", champion.benchmarks, None) if champion else []
    fingerprints = {run.name: run.manifest.fingerprint for run in (*candidates, *reigning)}
    fingerprints["timings"] = files.digest([_timings(run) for run in (*candidates, *reigning)])
    if champion:
        fingerprints["version"] = files.digest([champion.version, champion.withdrawn])
    sections = params.model_dump(mode="json", include={"promote", "compare"})
    with Workspace(output, stage="gate", code="cliprd.promotion.gate", params=sections, inputs=fingerprints) as work:
        if work.finished:
            return work.finished
        decision = {
            "champion": champion.version if champion else None,
            "candidate": sorted(run.manifest.fingerprint for run in candidates),
            "confidence": params.promote.confidence,
            "protocol": protocol,
            "notes": [],
            **_decide(_Comparison(candidates, reigning, champion, params, _settings(candidates, params))),
        }
        write_json(work.path / DECISION, decision)
        with atomic_write(work.path / TEXT, "w") as file:
            file.write(report.markdown(decision))
        return work.finish(facts={key: decision[key] for key in ("passed", "verdict", "reason")})


def _folders(inputs: Mapping[str, Location]) -> list[Path]:
    """The benchmarks' folders, fetched; an input without a manifest is a folder of such folders."""
    folders: list[Path] = []
    for _, location in sorted((name, value) for name, value in inputs.items() if name.startswith("candidate")):
        root = resolve(location)
        if storage.read_bytes(storage.join(root, manifest.NAME)) is not None:
            folders.append(fetch_folder(root))
            continue
        below = [path.relative_to(root).as_posix() for path in Path(root).glob(f"*/{manifest.NAME}")]
        names = storage.list_folder(root) if storage.is_s3(root) else below
        parts = [name.split("/")[0] for name in sorted(names) if name.split("/")[1:] == [manifest.NAME]]
        if not parts:
            manifest.read(root, stage="benchmark")  # raises: what is wrong with the folder
        folders += [fetch_folder(storage.join(root, part)) for part in parts]
    return folders


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
    tree = lineage.load(run.folder)
    if tree is None:
        return None
    section = {name: value for name, value in tree["params"].get("distill", {}).items() if name != "seed"}
    inputs = {name: entry["fingerprint"] for name, entry in tree["inputs"].items()}
    code = {part: sha for part, sha in tree["code_parts"].items() if part != "benchmark"}
    return [{**tree["params"], "distill": section}, inputs, code]


def _timings(run: Run) -> str | None:
    path = run.volatile("speed.json")
    return files.sha256_file(path) if path else None


def _students(runs: Sequence[Run]) -> set[str]:
    return {run.manifest.inputs.get("model", run.manifest.fingerprint) for run in runs}


def _settings(candidates: Sequence[Run], params: Params) -> Settings:
    """The resampling of the candidate's own scores, at the gate's confidence."""
    settings = Settings.of(candidates[0].results, params.promote.confidence)
    if not settings.enough:
        raise ParamsError(
            f"'promote.confidence' = {settings.confidence:g} needs more than {settings.resamples:,} resamples.",
            "Lower it, or raise benchmark.bootstrap and benchmark again.",
        )
    return settings


def _decide(comparison: _Comparison) -> dict[str, Any]:
    """The answer of `_answered`, unless candidate or teacher are not above guessing and it would be promoted."""
    answer, candidates = _answered(comparison), comparison.candidates
    if answer["verdict"] in ("champion", "rescored", "withdrawn", "no place"):
        return answer
    protocol = comparison.params.compare.protocol
    stands = standing(candidates, protocol, comparison.settings)
    above = stands["above_guessing"]
    rates = {t: {**rate, "above_guessing": above["tasks"][t]} for t, rate in stands["floor"]["tasks"].items()}
    shown = {"mean": stands["mean"], "floor": stands["floor"]["mean"], "above_guessing": above["mean"], "tasks": rates}
    answer |= {"standing": shown, "overrides": []}
    faults = []
    if any(_teacher_above(run, protocol) is False for run in candidates):
        faults.append("nothing to distil: the candidate's teacher is not above guessing")
    if not above["mean"]:
        why = verdicts.standing(stands["mean"], stands["floor"]["mean"], False)
        faults.append(f"nothing to promote: the candidate is {why}")
    if not faults:
        return answer
    reason = "; ".join(faults)
    if comparison.params.promote.allow_guessing:
        overridden = {"overrides": [ALLOW], "reason": f"{answer['reason']}; {reason}, which {ALLOW} overrides"}
        return {**answer, **(overridden if answer["passed"] else {})}
    if "mean" in answer and not answer["passed"]:  # a comparison that is against it, too
        reason = f"{reason}; {answer['reason']}"
    return {**answer, **_answer("not above guessing", reason)}


def _teacher_above(run: Run, protocol: str) -> bool | None:
    """Whether the teacher that a student was benchmarked against is above guessing; None where that is not known."""
    above: dict[str, bool] = (run.results.get("reference") or {}).get("above_guessing") or {}
    return above.get(protocol)


def _answered(comparison: _Comparison) -> dict[str, Any]:
    """The answer without a look at guessing."""
    candidates, reigning, champion = comparison.candidates, comparison.reigning, comparison.champion
    if not comparison.params.promote.champion:
        return _answer("no place", "promote.champion names no place for a champion")
    if champion is None:
        return _answer("first", "there is no champion yet")
    if {run.manifest.fingerprint for run in candidates} == {run.manifest.fingerprint for run in reigning}:
        return _answer("champion", "this is the champion")
    if {mark for run in candidates for mark in marks_of(run.folder)} & set(champion.withdrawn):
        return _answer(
            "withdrawn", "a rollback took this student out of use; `cliprd rollback --to` its version brings it back"
        )
    if _students(candidates) == _students(reigning):
        return _answer("rescored", "this is the champion's own student, with new scores")
    if why := _incomparable(candidates[0], reigning[0], comparison.params.compare.protocol):
        return _answer("not comparable", why)
    return _compared(comparison)


def _answer(verdict: str, reason: str) -> dict[str, Any]:
    return {"passed": VERDICTS.index(verdict) < 3, "verdict": verdict, "reason": reason}


def _incomparable(candidate: Run, reigning: Run, protocol: str) -> str:
    """Why the champion's tasks are not the candidate's; further tasks of the candidate are no reason."""
    remedy = "benchmark the champion's student on the candidate's tasks, promote it with these scores, and gate again"
    for name, theirs in sorted(reigning.results["tasks"].items()):
        ours = candidate.results["tasks"].get(name)
        if ours is None and (why := candidate.results.get("left_out", {}).get(name)):
            return f"task '{name}' was left out of the candidate's benchmark ({why}), and the champion was scored on it"
        if ours is None:
            return f"the candidate was not scored on task '{name}', as the champion was; {remedy}"
        if ours["fingerprint"] != theirs["fingerprint"]:
            return f"task '{name}' holds other data than when the champion was scored; {remedy}"
        if protocol not in theirs["protocols"]:
            return f"the champion was not scored on task '{name}' by protocol '{protocol}'; {remedy}"
    return ""


def _compared(comparison: _Comparison) -> dict[str, Any]:
    """The answer that the scores give, with every figure."""
    candidates, reigning, settings = comparison.candidates, comparison.reigning, comparison.settings
    protocol, tasks = comparison.params.compare.protocol, sorted(reigning[0].results["tasks"])
    differences = aggregate.differences(side(candidates, protocol, tasks), side(reigning, protocol, tasks), settings)
    guarded = guards(candidates, reigning, differences["tasks"], comparison.params.promote.margins, settings)
    word, recipes = aggregate.verdict(differences["mean"]), differences["covers"] == SEEDS
    ours = verdicts.named(candidates[0].results["model"].get("method") or "candidate", differences["covers"])
    finding = f"{report.points(differences['mean'])} points, {ours} against the champion{'' if recipes else ' in use'}"
    failed = [guard for guard in guarded if guard.ok is False]
    if word != "better":
        much = "significantly worse" if word == "worse" else "not significantly better"
        answer = _answer("not better", f"{finding}: {much}")
    elif failed:
        names = ", ".join(f"{guard.kind} {guard.name}" for guard in failed)
        answer = _answer("worse elsewhere", f"{finding}, but it may be worse by more than the margin in: {names}")
    else:
        answer = _answer("better", finding)
    notes = []
    if further := sorted(set(candidates[0].results["tasks"]) - set(tasks)):
        notes.append(f"Not compared, as the champion has no scores of it: {', '.join(further)}.")
    if absent := candidates[0].results.get("left_out"):
        notes.append(f"Not scored: {left_out(absent)}.")
    notes += _about_seeds(len(candidates), len(reigning), recipes)
    return {
        **answer,
        **differences,
        "difference": word,
        "seeds": {"candidate": len(candidates), "champion": len(reigning)},
        "guards": [asdict(guard) for guard in guarded],
        "notes": notes,
    }


def _about_seeds(ours: int, theirs: int, recipes: bool) -> list[str]:
    if ours + theirs == 2:
        return ["One seed a side: the intervals are of these two students; another seed may give another answer."]
    if not recipes:
        return ["All seeds of a side have the same mean: nothing is known of training noise."]
    if 1 in (ours, theirs):
        return [f"The {'candidate' if ours == 1 else 'champion'}'s one seed is taken to vary as the other side's do."]
    return []
