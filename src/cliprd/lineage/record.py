"""Lineage of a teacher, a student and its benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cliprd import storage
from cliprd.artifact import identity, manifest
from cliprd.artifact.manifest import Manifest
from cliprd.errors import InputError
from cliprd.files import write_json
from cliprd.lineage.common import ELSEWHERE, NAME, SCHEMA
from cliprd.models.plugin import code_in
from cliprd.reading import parse_json, read_json
from cliprd.storage import Location

CODE = f"{manifest.VOLATILE_DIR}/lineage-code.json"
PARTS = {
    "data": "cliprd.stages.prepare",
    "models": "cliprd.stages.teacher",
    "teacher_cache": "cliprd.stages.cache",
    "losses": "cliprd.losses",
    "distill": "cliprd.stages.distill",
    "benchmark": "cliprd.stages.benchmark",
}


def code_parts(teacher: Sequence[str], training: Sequence[str]) -> dict[str, str]:
    """Digest (hex) of each part of the code that matters.

    Args:
        teacher: module of a plug-in's teacher (`models.plugin.code_of`).
        training: modules of the training (`distill.sections.code`): users' loss terms are among them.
    """
    terms = training[1:]
    plugins = {"models": teacher, "teacher_cache": teacher, "benchmark": teacher, "losses": terms, "distill": terms}
    return {part: identity.digest(module, *plugins.get(part, ())) for part, module in PARTS.items()}


def summary(stage_manifest: Manifest) -> dict[str, Any]:
    """The lineage entry of a stage before the training."""
    return {
        "stage": stage_manifest.stage,
        "fingerprint": stage_manifest.fingerprint,
        "params": dict(stage_manifest.params),
        "facts": {
            name: value for name, value in stage_manifest.facts.items() if name not in ELSEWHERE[stage_manifest.stage]
        },
    }


def of_teacher(teacher: Manifest) -> dict[str, Any]:
    """A teacher as its cache records it (`facts.made_with`): without code, which does not affect a cache's content."""
    return {**summary(teacher), "inputs": dict(teacher.inputs)}


def made_of(shards: Location, cache: Location) -> dict[str, Any]:
    """The `inputs` of a student's lineage, from the folders of `prepare` and `cache`.

    Raises:
        InputError: one was written by a version of cliprd that recorded no lineage.
    """
    packed, embedded = manifest.read(shards), manifest.read(cache)
    for stage_manifest, fact, folder in ((packed, "sources", shards), (embedded, "made_with", cache)):
        if fact not in stage_manifest.facts:
            raise InputError(
                f"{folder} was written by a version of cliprd that recorded no lineage.",
                f"Run `cliprd {stage_manifest.stage}` again (or `dvc repro --force {stage_manifest.stage}`).",
            )
    sources = [{key: part[key] for key in ("name", "fingerprint", "samples")} for part in packed.facts["sources"]]
    return {
        "shards": {**summary(packed), "code": packed.code, "sources": sources},
        "cache": {**summary(embedded), "code": embedded.code, "inputs": {"teacher": embedded.facts["made_with"]}},
    }


def of_student(
    params: Mapping[str, Any], facts: Mapping[str, Any], inputs: Mapping[str, Any], code: Sequence[str]
) -> dict[str, Any]:
    """The lineage of a student.

    Args:
        params, facts: as its manifest will have them.
        inputs: as `made_of` says.
        code: modules of the training.
    """
    teacher = inputs["cache"]["inputs"]["teacher"]
    return {
        "schema": SCHEMA,
        "stage": "distill",
        "params": dict(params),
        "facts": {name: value for name, value in facts.items() if name != "inputs"},
        "code": identity.digest(*code),
        "code_parts": code_parts(code_in(teacher["stage"], teacher["params"]), code),
        "inputs": dict(inputs),
    }


def with_scores(tree: Mapping[str, Any], scores: Mapping[str, Any], tasks: Mapping[str, str]) -> dict[str, Any]:
    """A student's lineage with the scores of a benchmark.

    Args:
        scores: task → protocol → metric → value. tasks: task → fingerprint (`benchmark.task_folders.versions`).
    """
    return {**tree, "scores": dict(scores), "tasks": dict(tasks)}


def write(folder: Path, tree: Mapping[str, Any]) -> None:
    """Write `lineage.json`, and beside it what of the tree changes with the code alone."""
    plain = {name: value for name, value in tree.items() if name not in ("code", "code_parts")}
    inputs = {name: {key: value for key, value in entry.items() if key != "code"} for name, entry in _inputs(tree)}
    code = {"code": tree.get("code", ""), "code_parts": tree.get("code_parts", {})}
    codes = {name: {"code": entry.get("code", "")} for name, entry in _inputs(tree)}
    write_json(folder / CODE, {**code, "inputs": codes})
    write_json(folder / NAME, {**plain, "inputs": inputs})


def with_code(folder: Location, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a folder's `lineage.json`, joined with the code versions beside it; older ones hold them."""
    try:
        beside = parse_json(storage.read_bytes(storage.join(folder, CODE)) or b"{}")
        codes = {name: {**beside.get("inputs", {}).get(name, {}), **entry} for name, entry in _inputs(tree)}
        return {"code": "", "code_parts": {}, **beside, **tree, "inputs": codes}
    except (ValueError, AttributeError, TypeError):
        return {"code": "", "code_parts": {}, **tree}


def load(folder: Path) -> dict[str, Any] | None:
    """The lineage in a folder that was checked; None where it has none."""
    return with_code(folder, read_json(folder / NAME)) if (folder / NAME).is_file() else None


def _inputs(tree: Mapping[str, Any]) -> Any:
    return tree.get("inputs", {}).items()
