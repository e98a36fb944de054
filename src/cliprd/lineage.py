"""Where a student comes from, in one file beside its weights: `lineage.json`, back to the raw shards.

    {"schema": 1, "stage": "distill", "params": {...}, "facts": {...}, "code": version,
     "code_parts": {"data": sha256, "models", "teacher_cache", "losses", "distill", "benchmark"},
     "inputs": {"shards": {"stage": "prepare", "fingerprint", "params", "code", "facts",
                           "sources": [{"name", "fingerprint", "samples"}]},      # a raw tar, a table, or a folder each
                "cache": {"stage": "cache", "fingerprint", "params", "code", "facts",
                          "inputs": {"teacher": {"stage": "teacher", "fingerprint", "params", "inputs", "facts"}}}},
     "scores": {TASK: {PROTOCOL: {METRIC: value}}}, "tasks": {TASK: fingerprint}}         # in a benchmark's folder only

`distill` writes it and `benchmark` adds the scores. It holds no times and no revision: equal work gives equal bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cliprd import identity, manifest, storage
from cliprd.errors import InputError
from cliprd.manifest import Manifest
from cliprd.names import visible
from cliprd.reading import parse_json
from cliprd.storage import Location

SCHEMA = 1
NAME = "lineage.json"
SHOWN = 50  # sources in a text for people
PARTS = {
    "data": "cliprd.stages.prepare",
    "models": "cliprd.stages.teacher",
    "teacher_cache": "cliprd.stages.cache",
    "losses": "cliprd.losses",
    "distill": "cliprd.stages.distill",
    "benchmark": "cliprd.stages.benchmark",
}
"""The code that matters: each module with all that it can reach (`identity.closure`)."""


_ELSEWHERE = defaultdict(tuple, prepare=("sources",), cache=("shards", "made_with"))  # facts told elsewhere in the tree


@dataclass(frozen=True)
class Change:
    """A difference between two lineages.

    Attributes:
        kind: what sort of thing has changed.
        what: its name: of a raw shard, a parameter (`distill.epochs`), a part of the code, a teacher or a task.
        before, after: its value or fingerprint; None where there was or is none.
    """

    kind: Literal["data", "params", "code", "teacher", "tasks"]
    what: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.kind}: {self.what} is new{'' if self._opaque else f' ({_short(self.after)})'}"
        if self.after is None:
            return f"{self.kind}: {self.what} is gone"
        return f"{self.kind}: {self.what} changed from {_short(self.before)} to {_short(self.after)}"

    @property
    def _opaque(self) -> bool:
        return self.kind in ("data", "code", "tasks")


def code_parts() -> dict[str, str]:
    """Digest (hex) of each part of the code that matters."""
    return {part: identity.digest(module) for part, module in PARTS.items()}


# --- written by the stages


def summary(found: Manifest) -> dict[str, Any]:
    """What a lineage says of a stage that came before the training."""
    return {
        "stage": found.stage,
        "fingerprint": found.fingerprint,
        "params": dict(found.params),
        "facts": {name: value for name, value in found.facts.items() if name not in _ELSEWHERE[found.stage]},
    }


def of_teacher(found: Manifest) -> dict[str, Any]:
    """A teacher, as its cache keeps it (`facts.made_with`): without its code, of which a cache's content is no part."""
    return {**summary(found), "inputs": dict(found.inputs)}


def made_of(shards: Location, cache: Location) -> dict[str, Any]:
    """What a student's lineage says of its inputs: the folders of `prepare` and `cache`.

    Raises:
        InputError: one was made by a cliprd that kept no lineage.
    """
    packed, embedded = manifest.read(shards), manifest.read(cache)
    for found, fact, folder in ((packed, "sources", shards), (embedded, "made_with", cache)):
        if fact not in found.facts:
            raise InputError(
                f"{folder} was made before cliprd kept the lineage: it does not say what of.",
                f"Run `cliprd {found.stage}` again (or `dvc repro --force {found.stage}`).",
            )
    sources = [{key: part[key] for key in ("name", "fingerprint", "samples")} for part in packed.facts["sources"]]
    return {
        "shards": {**summary(packed), "code": packed.code, "sources": sources},
        "cache": {**summary(embedded), "code": embedded.code, "inputs": {"teacher": embedded.facts["made_with"]}},
    }


def of_student(params: Mapping[str, Any], facts: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The lineage of a student.

    Args:
        params, facts: as its manifest will have them.
        inputs: as `made_of` says.
    """
    return {
        "schema": SCHEMA,
        "stage": "distill",
        "params": dict(params),
        "facts": {name: value for name, value in facts.items() if name != "inputs"},
        "code": identity.digest("cliprd.stages.distill"),
        "code_parts": code_parts(),
        "inputs": dict(inputs),
    }


def with_scores(tree: Mapping[str, Any], scores: Mapping[str, Any], tasks: Mapping[str, str]) -> dict[str, Any]:
    """A student's lineage with what a benchmark found.

    Args:
        scores: task → protocol → metric → value. tasks: task → fingerprint (`benchmark.task_folders.versions`).
    """
    return {**tree, "scores": dict(scores), "tasks": dict(tasks)}


# --- read


def of(folder: Location) -> dict[str, Any]:
    """The lineage of a student, a benchmark, or a package that holds `student/` and `benchmark*/`.

    Of a package the benchmark's is taken, as it has the scores; of several benchmarks that of the first.

    Raises:
        InputError: there is none, or it is damaged. RetryableError: the folder is in S3, and the network failed.
    """
    place = storage.resolve(folder)
    for inner in _candidates(place):
        if (tree := _read(inner)) is not None:
            return tree
    found = storage.read_bytes(storage.join(place, manifest.NAME))
    if found is None:
        raise InputError(
            f"{folder} has no {NAME} and holds no student with one.",
            "Give a folder of `cliprd distill` or `cliprd benchmark`, or one that holds student/ and benchmark/.",
        )
    stage = manifest.read(place).stage
    if stage == "distill":
        raise InputError(
            f"{folder} was trained before cliprd kept the lineage.", "Train it again with `cliprd distill`."
        )
    if stage == "benchmark":
        raise InputError(
            f"{folder} is the benchmark of a teacher, or of a student without a lineage.",
            "Give a student's; one that was trained before cliprd kept the lineage must be trained again.",
        )
    raise InputError(f"{folder} was made by stage '{stage}': only students have a lineage.", "Give a student's folder.")


def _candidates(place: Location) -> Iterator[Location]:
    """The folder itself, then the benchmarks and the student in it, or below its `artifacts` (as MLflow keeps them)."""
    if isinstance(place, Path):
        found = [path for depth in ("*", "*/*", "artifacts/*/*") for path in place.glob(f"{depth}/{NAME}")]
        inside = [path.parent.relative_to(place).as_posix() for path in found]
    else:
        inside = [name.rsplit("/", 1)[0] for name in storage.list_folder(place) if name.endswith(f"/{NAME}")]
    yield place
    for name in sorted(set(inside)):
        if name.removeprefix("artifacts/").startswith(("benchmark", "student")):
            yield storage.parse(storage.join(place, name))


def _read(folder: Location) -> dict[str, Any] | None:
    path = storage.join(folder, NAME)
    data = storage.read_bytes(path)
    remedy = "Fetch or make its folder again."
    sealed = storage.read_bytes(storage.join(folder, manifest.NAME)) is not None
    entry = manifest.read(folder).files.get(NAME) if sealed else None
    if data is None:
        if entry is not None:
            raise InputError(f"{path} is missing, or is no file; the manifest beside it lists it.", remedy)
        return None
    if sealed and (entry is None or entry["sha256"] != hashlib.sha256(data).hexdigest()):
        raise InputError(f"{path} is damaged: it does not match the manifest beside it.", remedy)
    try:
        tree = parse_json(data)
        schema = tree["schema"]
        known = tree["stage"] == "distill" and {"shards", "cache"} <= tree["inputs"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no lineage: {error!r}.", remedy) from error
    if schema != SCHEMA or not known:
        raise InputError(f"{path} has schema {schema}; this cliprd reads schema {SCHEMA} of students.", remedy)
    return dict(tree)


# --- compared


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """What differs between two lineages (or a lineage and what is `wanted`), by kind; none: the same student.

    Where the data lie (`data.path`) is no difference while they are the same. Tasks are compared if both name them.
    """
    return [
        *_differences("data", _sources(before), _sources(now)),
        *_differences("params", _flat_params(before), _flat_params(now)),
        *_differences("code", before["code_parts"], now["code_parts"]),
        *_differences("teacher", _teacher(before), _teacher(now)),
        *(_differences("tasks", before["tasks"], now["tasks"]) if "tasks" in before and "tasks" in now else ()),
    ]


def _differences(kind: Any, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    names = sorted({*before, *now})
    return [Change(kind, name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _sources(tree: Mapping[str, Any]) -> dict[str, str]:
    return {part["name"]: part["fingerprint"] for part in tree["inputs"]["shards"]["sources"]}


def _flat_params(tree: Mapping[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in tree["inputs"]["shards"]["params"].items() if name != "path"}
    return dict(_flat({"data": data, **tree["inputs"]["cache"]["params"], **tree["params"]}))


def _teacher(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Without what it was trained on: that are the data."""
    teacher = tree["inputs"]["cache"]["inputs"]["teacher"]
    inputs = {name: value for name, value in teacher["inputs"].items() if name != "shards"}
    return dict(_flat({**teacher["params"].get("teacher", {}), **inputs}))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


# --- told


def describe(tree: Mapping[str, Any]) -> str:
    """The tree as text for a terminal, from the scores back to the raw shards."""
    return "\n".join(map(visible, _lines(tree))) + "\n"


def _lines(tree: Mapping[str, Any]) -> Iterator[str]:
    facts, shards, cache = tree["facts"], tree["inputs"]["shards"], tree["inputs"]["cache"]
    teacher = cache["inputs"]["teacher"]
    yield f"student {facts.get('run', '')}: {facts.get('steps')} steps, {facts.get('samples_seen')} samples seen"
    for task, protocols in sorted(tree.get("scores", {}).items()):
        for protocol, scores in sorted(protocols.items()):
            told = "  ".join(f"{metric} {value:.4f}" for metric, value in sorted(scores.items()))
            yield f"├─ score {task}, {protocol}: {told}"
    yield f"├─ params {_told(manifest.in_force(tree['params'], facts).get('distill', {}))}"
    yield f"├─ code {tree['code']}: " + "  ".join(f"{part} {_short(sha)}" for part, sha in tree["code_parts"].items())
    yield f"├─ cache {_short(cache['fingerprint'])}: {_told(cache['params'].get('cache', {}))}"
    yield f"│  ├─ augmentation {_told(cache['params'].get('augmentation', {}))}"
    yield f"│  └─ teacher {teacher['facts'].get('id', '')} {_short(teacher['fingerprint'])}, weights sha256 " + _short(
        str(teacher["facts"].get("weights_sha256", "?"))
    )
    sources: Sequence[Mapping[str, Any]] = shards["sources"]
    yield (
        f"└─ shards {_short(shards['fingerprint'])}: {shards['facts']['samples']} samples in "
        f"{shards['facts']['shards']} shards, {shards['facts']['rejected']} set aside; of {shards['params']['path']}:"
    )
    hidden = len(sources) - SHOWN
    for number, part in enumerate(sources[:SHOWN], 1):
        corner = "└" if number == len(sources) else "├"
        yield f"   {corner}─ {part['name']} {_short(part['fingerprint'])}: {part['samples']} samples"
    if hidden > 0:
        yield f"   └─ … and {hidden} more (--json has them all)"


def _told(section: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in _flat(section) if value not in (None, {}))


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{64}", text) else text
