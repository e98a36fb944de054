"""Lineage of a teacher, a student and its benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliprd import storage
from cliprd.artifact import identity, manifest
from cliprd.artifact.manifest import Manifest
from cliprd.errors import InputError
from cliprd.files import write_json
from cliprd.lineage.common import ELSEWHERE, NAME, SCHEMA
from cliprd.reading import parse_json, read_json
from cliprd.storage import Location

CODE = f"{manifest.VOLATILE_DIR}/lineage-code.json"
PARTS = {  # of the code that matters: each module with all that it can reach (`identity.closure`)
    "data": "cliprd.stages.prepare",
    "models": "cliprd.stages.teacher",
    "teacher_cache": "cliprd.stages.cache",
    "losses": "cliprd.losses",
    "distill": "cliprd.stages.distill",
    "benchmark": "cliprd.stages.benchmark",
}


def code_parts() -> dict[str, str]:
    """Digest (hex) of each part of the code that matters."""
    return {part: identity.digest(module) for part, module in PARTS.items()}


def summary(found: Manifest) -> dict[str, Any]:
    """What a lineage says of a stage that came before the training."""
    return {
        "stage": found.stage,
        "fingerprint": found.fingerprint,
        "params": dict(found.params),
        "facts": {name: value for name, value in found.facts.items() if name not in ELSEWHERE[found.stage]},
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
