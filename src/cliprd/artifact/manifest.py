"""`manifest.json`: the last file a stage writes, and what the next stage believes.

A manifest names its stage, the parameters and input fingerprints it was made from, and every file with size and sha256.
It carries its own digest, so a flipped byte anywhere in the folder is found, the manifest included. Nothing in it
changes unless the result does: files that depend on the clock (timings) and the writer's code version
(`cliprd.artifact.identity`) are under `VOLATILE_DIR`, which is no part of it. So an edit of code that changes no byte
reruns its stage, and nothing downstream of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliprd import storage
from cliprd.artifact.pointer import NAME as NAME
from cliprd.artifact.pointer import resolve
from cliprd.errors import InputError
from cliprd.files import canonical, digest, sha256_file, write_json
from cliprd.reading import parse_json

SCHEMA = 1
VOLATILE_DIR = "volatile"  # in the folder, not in the manifest, so that equal work gives equal digests
CODE = f"{VOLATILE_DIR}/code.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a finished stage says of its folder.

    Attributes:
        stage: name of the stage that wrote the folder.
        params: the parameters that shaped the output, and only those.
        inputs: name → fingerprint of what was read (an input manifest's `fingerprint`, a file's sha256, ...).
        files: relative POSIX path → {"size": bytes, "sha256": hex}.
        facts: what downstream needs to know without opening the files (counts, dims, ids).
        code: digest of the code that wrote the folder (`identity.digest`), from `CODE`; older folders have it
            in the manifest; empty: unknown.
    """

    stage: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""

    def body(self) -> dict[str, Any]:
        """What the folder *is*: everything but the digest and the code."""
        return {
            "schema": SCHEMA,
            "stage": self.stage,
            "params": dict(self.params),
            "inputs": dict(self.inputs),
            "files": {name: dict(entry) for name, entry in self.files.items()},
            "facts": dict(self.facts),
        }

    @property
    def fingerprint(self) -> str:
        """sha256 of `body`."""
        return digest(self.body())


def in_force(params: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a manifest as people are to see them: with what its fact `effective` says of them.

    The parameters themselves identify the work. What had no effect is left out.
    """
    effective: Mapping[str, Mapping[str, Any]] = facts.get("effective") or {}
    merged = {name: {**params.get(name, {}), **section} for name, section in effective.items()}
    seen = {name: {k: v for k, v in section.items() if v is not None} for name, section in merged.items()}
    return {**params, **seen}


def list_files(folder: Path) -> list[Path]:
    """The files a manifest covers: all but the manifest, hidden entries and `VOLATILE_DIR`, sorted by relative path."""
    found = []
    for root, dirs, names in os.walk(folder):
        dirs[:] = sorted(d for d in dirs if not d.startswith(".") and not (d == VOLATILE_DIR and Path(root) == folder))
        found += [Path(root, n) for n in names if not n.startswith(".") and Path(root, n) != folder / NAME]
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def write(
    folder: Path,
    *,
    stage: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    facts: Mapping[str, Any] | None = None,
    code: str = "",
) -> Manifest:
    """Hash every file in `folder` and write its manifest, last and atomically; before it `code`, if any."""
    if code:
        write_json(folder / CODE, {"code": code})
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256_file(path)}
        for path in list_files(folder)
    }
    manifest = Manifest(stage=stage, params=params, inputs=inputs, files=files, facts=facts or {})
    body = json.loads(canonical(manifest.body()))  # what a reader will see: tuples are lists, keys are strings
    write_json(folder / NAME, {**body, "digest": digest(body)})
    return read(folder)


def read(folder: storage.Location, *, stage: str | None = None) -> Manifest:
    """Read and check a folder's manifest (not yet its files: see `verify`).

    Raises:
        InputError: no manifest (the stage never finished), damaged, from another schema, or of another stage.
    """
    path = storage.join(folder, NAME)
    what = f"`cliprd {stage}`" if stage else "the stage that makes it"
    rerun = f"Run {what} again (or `dvc repro`)."
    data = storage.read_bytes(path)
    if data is None:
        there = bool(storage.list_folder(folder)) if storage.is_s3(folder) else Path(folder).is_dir()
        absent = "is no folder" if not storage.is_s3(folder) and Path(folder).exists() else "does not exist"
        state = "has no manifest.json, so it was never finished" if there else absent
        raise InputError(f"{folder} {state}.", rerun)
    try:
        raw = parse_json(data)
        stored = raw.pop("digest")
        schema = raw.pop("schema")
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error!r}.", f"Delete {folder}, then: {rerun}") from error
    if stored != digest({**raw, "schema": schema}):
        raise InputError(
            f"{path} is damaged: its content does not match its digest {str(stored)[:12]}…",
            f"Delete {folder}, then: {rerun}",
        )
    if schema != SCHEMA:
        raise InputError(f"{path} has schema {schema}; this cliprd reads schema {SCHEMA}.", rerun)
    if stage is not None and raw["stage"] != stage:
        raise InputError(
            f"{folder} was made by stage '{raw['stage']}', but a folder made by '{stage}' is needed here.",
            "Check the paths on the command line.",
        )
    return Manifest(**{"code": _code(folder), **raw})


def _code(folder: storage.Location) -> str:
    try:
        return str(parse_json(storage.read_bytes(storage.join(folder, CODE)) or b"")["code"])
    except (ValueError, KeyError, TypeError):
        return ""  # absent or damaged: it then equals no code


def verify(location: storage.Location, *, stage: str | None = None) -> Manifest:
    """`read`, then compare every file with its size and sha256; a pointer is followed (see `resolve`).

    A file is hashed once in a command (`storage.sha256`). Of a folder in S3 the sizes are compared: a file's content is
    when it comes here (`storage.local_file`).

    Raises:
        InputError: names the first file that is missing, has another size or another content, with both values.
        RetryableError: the folder is in S3, and the network or the store failed.
    """
    folder = resolve(location)
    manifest = read(folder, stage=stage)
    remedy = f"Delete {folder} and run `cliprd {manifest.stage}` again (or `dvc repro`)."
    sizes = storage.list_folder(folder) if storage.is_s3(folder) else None
    for name, entry in manifest.files.items():
        path = Path(folder, name)
        size = sizes.get(name) if sizes is not None else path.stat().st_size if path.is_file() else None
        where = storage.join(folder, name)
        if size is None:
            raise InputError(f"{where} is missing; the manifest of stage '{manifest.stage}' lists it.", remedy)
        if size != entry["size"]:
            raise InputError(f"{where} is damaged: {size} bytes, expected {entry['size']}.", remedy)
        if sizes is None and (actual := storage.sha256(path)) != entry["sha256"]:
            raise InputError(f"{where} is damaged: sha256 {actual[:12]}…, expected {entry['sha256'][:12]}…", remedy)
    return manifest
