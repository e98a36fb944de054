"""A stage's face in a container: parameters as KFP hands them over, failures as one line and an exit code.

KFP itself is not imported here: artifacts come as folders, and what a UI should show is returned as plain values.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cliprd import identity, manifest, params, signals, storage
from cliprd.errors import CliprdError, InputError, ParamsError, RetryableError, of_system
from cliprd.machine import limit_threads
from cliprd.manifest import Manifest, digest, write_json
from cliprd.names import one_line, visible
from cliprd.params import Params
from cliprd.report import markdown
from cliprd.storage import Location, TakenOverError

T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE = 2.0  # seconds; doubled each time, and spread over half to once and a half of it
TERMINATION_LOG = Path("/dev/termination-log")
MOST_NOTED = 4500  # characters; MLflow's database holds 5,000 in a tag
MOST_CLASSES = 50  # a larger confusion matrix cannot be read in the Kubeflow UI


def run(
    stage: str,
    sections: Mapping[str, Any],
    inputs: Mapping[str, str],
    output: str,
    *,
    store: str = "",
    content: str = "",
    keep: bool = False,
    **options: Any,
) -> Manifest:
    """Run one stage; what may heal is tried again here, so that the scheduler need not repeat what cannot.

    Args:
        stage: name of a module of `cliprd.stages`.
        sections: sections of the parameter tree; those left out keep their defaults.
        inputs: name → folder, as the stage takes them: here, `s3://`, or one that points there (`storage.resolve`).
        output: folder to write, here or `s3://`.
        store: s3:// prefix in which the stage works, so that a lost pod loses little; under it the folder's name is
            made of all that shapes its content, so that equal work is found done, whichever pipeline did it.
        content: what shapes the output beside sections, inputs and code: the fingerprint of data outside.
        keep: leave the content in the store, and in `output` only a pointer to it.
        options: of the stage.

    A failure ends the process: its message alone on stderr, its exit code as in `cliprd.errors`.
    """
    limit_threads()  # before the stage brings in torch
    with _one_line():
        tree = _tree(sections, where=stage)
        module = importlib.import_module(f"cliprd.stages.{stage}")
        folders = {name: storage.parse(path) for name, path in inputs.items()}
        if not store:
            made: Manifest = _attempts(lambda: module.run(tree, folders, storage.parse(output), **options))
            return made
        url = _address(store, stage, sections, folders, [content, options])
        with _failing_at_once(f"{url}.failed.json"):
            made = _attempts(lambda: _made_once(url, lambda: module.run(tree, folders, url, **options)))
        if keep:
            _attempts(lambda: storage.write_pointer(Path(output), url))
        else:
            shutil.copytree(_attempts(lambda: storage.fetch_folder(url)), output, dirs_exist_ok=True)
        return made


def distill_nodes(
    sections: Mapping[str, Any], inputs: Mapping[str, str], output: str, *, store: str, image: str
) -> Manifest:
    """`distill` by a job on `kubernetes.nodes` nodes, in the same place of the store as by this pod alone.

    Args:
        sections: as of `run`, and `kubernetes`.
        inputs: folders that lie in the store, or point there.
        store: s3:// prefix.
        image: the nodes'.
    """
    from cliprd.trainjob import follow
    from cliprd.trainjob.cluster import Cluster
    from cliprd.trainjob.manifest import make

    with _one_line():
        tree = _tree(sections, where="distill_nodes")
        if not store:
            raise ParamsError("kubernetes.store is empty: many nodes meet in S3.", "Set it to an s3:// prefix.")
        folders = {name: _attempts(lambda path=path: storage.resolve(path)) for name, path in inputs.items()}  # type: ignore[misc]
        training = {name: section for name, section in sections.items() if name != "kubernetes"}
        url = _address(store, "distill", training, folders, ["", {}])
        job = make(tree, image, nodes=tree.kubernetes.nodes, output=url, form=tree.kubernetes.engine, **folders)
        with _failing_at_once(f"{url}.failed.json"):
            if _attempts(lambda: storage.read_bytes(storage.join(url, manifest.NAME))) is None:
                follow.run(Cluster.here(), job)
            made = _attempts(lambda: manifest.verify(url, stage="distill"))
        shutil.copytree(_attempts(lambda: storage.fetch_folder(url)), output, dirs_exist_ok=True)
        return made


def plan(
    sections: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], text: str, *, places: Sequence[str] = ()
) -> tuple[str, str, str]:
    """Check everything that can be wrong before any work is done, and write what it will be.

    Args:
        sections: the whole parameter tree, as the pipeline's inputs have it.
        runs: `{"method": ..., "seed": ...}` of each training.
        text: file for the plan, Markdown.
        places: that will be written to, beside the champion's: a wrong bucket or credential is told now.

    Returns:
        Fingerprints of the source data, of the benchmark's tasks and of the teacher's weights. Handed on to the steps
        that read them, they make Kubeflow's cache see what changed behind an unchanged name.
    """
    from cliprd import inputs
    from cliprd.benchmark import task_set
    from cliprd.data.count import of_source
    from cliprd.plan import plan as describe
    from cliprd.stages.compare import reference_method
    from cliprd.tracking import check

    with _one_line():
        methods, seeds = params.check_runs(whole_numbers(list(runs)))
        trees = [
            _tree({**sections, "distill": {**sections["distill"], "method": method, "seed": seeds[0]}}, where="plan")
            for method in methods
        ]
        grid = {"methods": list(methods), "seeds": list(seeds)}
        reference = sections["compare"]["reference"] if len(methods) > 1 else trees[0].distill.method
        reference_method(
            _tree(
                {**sections, "ablation": grid, "compare": {**sections["compare"], "reference": reference}}, where="plan"
            )
        )
        found = _attempts(lambda: inputs.look(trees[0]))
        pairs = _attempts(lambda: of_source(trees[0].data))
        described = {tree.distill.method: _attempts(lambda tree=tree: describe(tree, pairs)) for tree in trees}  # type: ignore[misc]
        task_set.check(trees[0].benchmark)
        for place in filter(None, places):
            _attempts(lambda place=place: storage.read_bytes(storage.join(place, manifest.NAME)))  # type: ignore[misc]
        tracked = check(trees[0])
        _noted({name: sections[name] for name in ("promote", "tracking") if name in sections}, "plan")
        written = "".join(
            f"## {method}\n\n{markdown.fence(lines.rstrip(), '')}\n\n" for method, lines in described.items()
        )
        about = f"MLflow: {markdown.text(tracked)}"
        Path(text).write_text(f"# {len(runs)} training(s)\n\n{written}{about}\n", encoding="utf-8")
        source, tested, weights = (hashlib.sha256(inputs.encode(found[part])).hexdigest() for part in inputs.PARTS)
        return source, tested, weights


def merge(sections: Mapping[str, Any], shards: str, parts: Sequence[str], output: str, *, store: str = "") -> Manifest:
    """`merge` of parts that lie anywhere."""
    with tempfile.TemporaryDirectory() as place:
        for number, part in enumerate(parts):
            Path(place, f"{number:05d}").symlink_to(Path(part).resolve())
        return run("merge", sections, {"shards": shards, "parts": place}, output, store=store, keep=bool(store))


def compare(
    sections: Mapping[str, Any], benchmarks: Sequence[str], students: Sequence[str], teacher: str, output: str
) -> Manifest:
    """`compare` of folders that lie anywhere: each student's manifest says its method and seed.

    `ablation.methods` and `ablation.seeds` are what was trained, in the order of `students`.
    """
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        trained: list[tuple[str, int]] = []
        with _one_line():
            runs = {_name(folder, trained): folder for folder in map(_here, students)}
            scores = {_benchmarked(folder): folder for folder in map(_here, benchmarks)}
            baseline = _here(teacher)
        for kind, folders in (("students", runs), ("benchmarks", {**scores, "teacher": baseline})):
            (room / kind).mkdir()
            for name, folder in folders.items():
                (room / kind / name).symlink_to(folder)
        methods, seeds = (list(dict.fromkeys(column)) for column in zip(*trained, strict=True))
        ablation = {**sections.get("ablation", {}), "methods": methods, "seeds": seeds}
        return run(
            "compare",
            {**sections, "ablation": ablation},
            {"benchmarks": str(room / "benchmarks"), "students": str(room / "students")},
            output,
        )


def gate(sections: Mapping[str, Any], candidate: str, output: str, *, run_name: str, publish: bool = True) -> Manifest:
    """`gate`, with a note for `record` of what it said, and whether a student that passes is to be promoted."""
    made = run("gate", sections, {"candidate": candidate}, output)
    with _one_line():
        decision = json.loads((_here(output) / "decision.json").read_text(encoding="utf-8"))
        told = ("passed", "verdict", "reason", "champion", "mean", "tasks", "overrides")
        noted = {name: decision[name] for name in told if name in decision}
        if len(json.dumps(noted)) > MOST_NOTED:
            del noted["tasks"]  # told in the step's own artifact
        _note(sections, f"{run_name}/gate", {**noted, "publish": publish})
    return made


def promote(sections: Mapping[str, Any], student: str, benchmark: str, decision: str, *, run_name: str) -> str:
    """Publish the student as champion, with a note for `record`. Returns its version.

    Args:
        sections: `promote` and `tracking`.
        student, benchmark: folders of the candidate.
        decision: folder of the gate.
        run_name: of the pipeline's run, which has asked for it.
    """
    from cliprd.tracking.champion import publish

    with _one_line():
        version = _candidate(publish, sections, student, benchmark, _decision(decision), run_name)
        _note(sections, f"{run_name}/promote", {"version": version})
        return version


def refuse(sections: Mapping[str, Any], student: str, benchmark: str, decision: str, *, run_name: str) -> str | None:
    """Keep a refused student with the gate's word. Returns its version; None where there is nothing to keep.

    Arguments as of `promote`.
    """
    from cliprd.tracking.champion import check_candidate
    from cliprd.tracking.champion import refuse as keep

    with _one_line():
        found = _decision(decision)
        _attempts(lambda: check_candidate(Path(student), [Path(benchmark)]))
        if found["verdict"] in ("champion", "withdrawn", "no place"):
            return None
        return _candidate(keep, sections, student, benchmark, found, run_name)


def record(sections: Mapping[str, Any], text: str, *, run_name: str, state: str, error: str) -> str:
    """Write how a run ended as Markdown, and as JSON beside the champion. Returns it in a word.

    What `gate` and `promote` have left decides. Kubeflow's own word is told beside it: its backend derives that from
    the steps that ran last, and says RUNNING of runs whose last steps came from its cache or were left out.
    """
    with _one_line():
        gated, promoted = (_noted(sections, f"{run_name}/{step}") for step in ("gate", "promote"))
        if promoted:
            ending, why = "promoted", f"version {promoted['version']} is the champion"
        elif gated and not gated["passed"]:
            ending, why = "not promoted", gated["reason"]
        elif gated and not gated["publish"]:
            ending, why = "not promoted", f"as was asked; it passed the gate: {gated['reason']}"
        else:
            ending, why = "failed", f"{'after' if gated else 'before'} the gate: look at the run's failed step"
        if not sections["promote"]["champion"]:
            ending, why = "not promoted", "promote.champion names no place for a champion, nor for notes on the run"
        found = {"run": run_name, "ending": ending, "why": why, "kubeflow": state, "error": error}
        lines = [f"- {name}: {markdown.text(value)}" for name, value in found.items() if value]
        Path(text).write_text("\n".join(lines) + "\n", encoding="utf-8")
        _note(sections, f"{run_name}/ending", found)
        return ending


def metadata(made: Manifest, *, location: str = "") -> dict[str, Any]:
    """What an artifact's page shows: fingerprints, code version, the facts that are single values, and where it lies.

    Args:
        location: folder of the artifact; where it is a pointer, the address in the store is told.
    """
    facts = {
        name: visible(value) if isinstance(value, str) else value
        for name, value in made.facts.items()
        if isinstance(value, str | int | float)
    }
    inputs = {f"input_{name}": value for name, value in made.inputs.items()}
    with _one_line():
        place = _attempts(lambda: storage.resolve(location)) if location else Path()
    where = {} if isinstance(place, Path) else {"location": place}
    return {
        **facts,
        **inputs,
        **where,
        "fingerprint": made.fingerprint,
        "code": made.code,
        "stage": made.stage,
    }


def scores(folder: str) -> dict[str, float]:
    """`task protocol metric` → percent, of a benchmark folder."""
    found = json.loads((_here(folder) / "scores.json").read_text(encoding="utf-8"))
    return {
        f"{task} {protocol} {metric}": round(100 * value, 2)
        for task, protocols in found.items()
        for protocol, metrics in protocols.items()
        for metric, value in metrics.items()
    }


def confusion(folder: str) -> tuple[list[str], list[list[int]]] | None:
    """Class names and counts (rows: true) of the first classification task that is small enough to be looked at."""
    from safetensors.numpy import load_file

    from cliprd.report.confusion import counts
    from cliprd.report.results import shown_classnames

    place = _here(folder)
    results = json.loads((place / "results.json").read_text(encoding="utf-8"))
    for task, entry in sorted(results["tasks"].items()):
        names = shown_classnames(entry["classnames"] or [])
        if entry["kind"] == "classification" and len(names) <= MOST_CLASSES:
            outcomes = load_file(place / "outcomes" / f"{task}.safetensors")
            protocol = next(iter(entry["protocols"]))
            matrix = counts(outcomes["labels"], outcomes[f"{protocol}.predicted"][:, 0], len(names))
            return list(names), matrix.tolist()
    return None


def means(folder: str) -> dict[str, float]:
    """Method → mean score in percent, of a comparison folder."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in _here(folder).glob("metrics/*.json")}
    return {name: round(100 * entry["mean"], 2) for name, entry in sorted(found.items())}


def gains(folder: str) -> dict[str, float]:
    """`mean` and task → difference to the champion in points, of a folder of the gate; empty for the first student."""
    found = json.loads((Path(folder) / "decision.json").read_text(encoding="utf-8"))
    differences = {"mean": found["mean"], **found["tasks"]} if "mean" in found else {}
    return {name: round(100 * entry["value"], 2) for name, entry in differences.items()}


def log_metrics(artifact: Any, values: Mapping[str, float]) -> None:
    """Show `values` as a KFP `Metrics` artifact, and write them as its file.

    KFP keeps metrics in the metadata alone, and its local cache takes an output without a file for lost.
    """
    found = {name: value for name, value in values.items() if math.isfinite(value)}  # others fail the step
    for name, value in found.items():
        artifact.log_metric(visible(name), value)
    write_json(Path(artifact.path), found)


def log_confusion(artifact: Any, folder: str) -> None:
    """Show the confusion matrix of a benchmark folder as KFP's `ClassificationMetrics`, and write it as its file."""
    found = confusion(folder)
    if found:
        artifact.log_confusion_matrix(list(map(visible, found[0])), found[1])
    write_json(Path(artifact.path), {"classes": found[0], "counts": found[1]} if found else {})


def _here(folder: str) -> Path:
    return _attempts(lambda: storage.fetch_folder(folder)).resolve()


def _decision(folder: str) -> dict[str, Any]:
    manifest.verify(folder, stage="gate")
    found: dict[str, Any] = json.loads((Path(folder) / "decision.json").read_text(encoding="utf-8"))
    return found


def _candidate(
    act: Callable[..., str],
    sections: Mapping[str, Any],
    student: str,
    benchmark: str,
    decision: Mapping[str, Any],
    run_name: str,
) -> str:
    """`champion.publish` or `champion.refuse` of folders that lie here."""
    from cliprd.tracking.champion import asker

    tree = _tree(sections, where="promote")
    folders = Path(student), [Path(benchmark)]
    return _attempts(lambda: act(tree.promote.champion, tree, *folders, decision, asker(f"Kubeflow run {run_name}")))


def _note(sections: Mapping[str, Any], name: str, note: Mapping[str, Any]) -> None:
    from cliprd.tracking import champion

    tree = _tree(sections, where="champion")
    if tree.promote.champion:
        _attempts(lambda: champion.note(tree.promote.champion, tree, name, note))


def _noted(sections: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    from cliprd.tracking import champion

    tree = _tree(sections, where="champion")
    return _attempts(lambda: champion.noted(tree.promote.champion, tree, name)) if tree.promote.champion else None


def _tree(sections: Mapping[str, Any], *, where: str) -> Params:
    return params.validate({name: whole_numbers(section) for name, section in sections.items()}, where=where)


def _attempts(work: Callable[[], T]) -> T:
    """`work()`, tried again while its failure is one that may heal."""
    for attempt in range(1, ATTEMPTS):
        try:
            return work()
        except RetryableError as error:
            pause = FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
            print(f"cliprd: {error} Attempt {attempt} of {ATTEMPTS}; next in {pause:.0f} s.", file=sys.stderr)
            time.sleep(pause)
    return work()


@contextlib.contextmanager
def _failing_at_once(note: str) -> Iterator[None]:
    """What cannot heal is noted, for Kubeflow repeats a step whatever it failed of: the repetition ends by the note."""
    if int(os.environ.get("KFP_RETRY_INDEX") or 0) == 0:
        _attempts(lambda: storage.remove(note))
    elif data := _attempts(lambda: storage.read_bytes(note)):
        found = json.loads(data)
        kinds = {kind.exit_code: kind for kind in CliprdError.__subclasses__()}
        raise kinds.get(found["exit_code"], CliprdError)(found["problem"], found["remedy"])
    try:
        yield
    except CliprdError as error:
        if not error.retryable:
            told = {"exit_code": error.exit_code, "problem": error.problem, "remedy": error.remedy}
            with contextlib.suppress(CliprdError):  # its own failure is not what is to be told
                storage.write_bytes(note, json.dumps(told).encode())
        raise


def _made_once(url: str, work: Callable[[], Manifest]) -> Manifest:
    """`work()`; or the same work by another step that began it later, which is let go on and waited for."""
    while True:
        try:
            return work()
        except TakenOverError:
            print(
                f"cliprd: another step has begun the same work in {url}; waiting for it.", file=sys.stderr, flush=True
            )
            if (made := storage.await_finished(url)) is not None:
                return made


def _address(
    store: str, stage: str, sections: Mapping[str, Any], inputs: Mapping[str, Location], others: Sequence[Any]
) -> str:
    def fingerprint(folder: Location) -> Any:
        if isinstance(folder, Path) and not (folder / manifest.NAME).is_file():
            return [fingerprint(part) for part in sorted(folder.iterdir())]  # a folder of folders
        return manifest.read(folder).fingerprint

    found = {name: fingerprint(folder) for name, folder in inputs.items()}
    shaping = {name: whole_numbers(section) for name, section in sections.items() if name != "tracking"}
    name = digest([stage, shaping, found, identity.digest(f"cliprd.stages.{stage}"), *others])[:20]
    return storage.join(store, f"{stage}/{name}")


def _name(folder: Path, trained: list[tuple[str, int]]) -> str:
    settings = manifest.read(folder, stage="distill").params["distill"]
    trained.append((settings["method"], settings["seed"]))
    return f"{settings['method']}-{settings['seed']}"


def _benchmarked(folder: Path) -> str:
    manifest.read(folder, stage="benchmark")
    model = json.loads((folder / "results.json").read_text(encoding="utf-8"))["model"]
    if model["method"] is None:
        raise InputError(f"{folder} is the benchmark of a teacher, not of a student.", "Check the pipeline's wiring.")
    return f"{model['method']}-{model['seed']}"


def whole_numbers(value: Any) -> Any:
    """KFP keeps every number as a double, so 5 comes back as 5.0; the schema takes whole numbers for whole ones."""
    if isinstance(value, Mapping):
        return {key: whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole_numbers(item) for item in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    return int(value) if whole else value


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    with signals.raised():  # also while a failure is reported
        try:
            yield
        except KeyboardInterrupt as stop:
            _report(signals.line(stop))
            raise SystemExit(signals.exit_code(stop)) from None
        except (CliprdError, OSError) as error:
            known = of_system(error) if isinstance(error, OSError) else error
            if known is None:
                raise
            _report(str(known))
            raise SystemExit(known.exit_code) from None


def _report(line: str) -> None:
    line = one_line(line)
    print(f"cliprd: error: {line}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # in a pod: Kubernetes shows it as the reason, and Kubeflow at the step
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(line[:4000], encoding="utf-8")
