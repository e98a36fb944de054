"""What a cache was made of, and the refusal to use it for anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cliprd.data import augment
from cliprd.data.shards import ShardSet
from cliprd.errors import InputError
from cliprd.models.encoder import Encoder
from cliprd.params import Augmentation
from cliprd.storage import Location
from cliprd.teacher_cache.format import FORMAT

DTYPE = "float16"


def teacher_facts(encoder: Encoder) -> dict[str, Any]:
    """Everything on the teacher's side that fixes an embedding."""
    return {
        "teacher": encoder.id,
        "weights_sha256": encoder.weights_sha256,
        "image": encoder.image.to_dict(),
        "tokenizer": encoder.tokenizer,
        "dim": encoder.dim,
        "logit_scale": encoder.logit_scale,
    }


def augmentation_facts(augmentation: Augmentation) -> dict[str, Any]:
    """Everything that fixes a crop, beside the sample's key and the view."""
    return {"version": augment.VERSION, **augmentation.model_dump(mode="json")}


def augmentation_of(folder: Location, facts: Mapping[str, Any]) -> Augmentation:
    """The augmentation that a cache's facts name.

    Raises:
        InputError: its crops are of another version than this cliprd makes.
    """
    refuse_other(folder, facts, {"augmentation": {**facts["augmentation"], "version": augment.VERSION}})
    section = {key: value for key, value in facts["augmentation"].items() if key != "version"}
    return Augmentation.model_validate_json(json.dumps(section))


def facts(shards: ShardSet, encoder: Encoder, augmentation: Augmentation, views: int) -> dict[str, Any]:
    """The whole fingerprint, as it stands in the manifest's facts."""
    return {
        "format": FORMAT,
        "dtype": DTYPE,
        **teacher_facts(encoder),
        "views": views,
        "augmentation": augmentation_facts(augmentation),
        "shards": {shard.name: shard.sha256 for shard in shards.shards},
        "samples": shards.samples,
    }


def refuse_other(folder: Location, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compare a cache's facts with those wanted, one by one.

    Raises:
        InputError: names the first fact that differs, both values and what to run.
    """
    for name, value in expected.items():
        have = found.get(name)
        if have == value:
            continue
        if name == "shards":
            _refuse_shards(folder, have or {}, value)
        if isinstance(value, Mapping) and isinstance(have, Mapping):  # augmentation, image: name the very key
            key = next(k for k in {**value, **have} if value.get(k) != have.get(k))
            name, value, have = f"{name}.{key}", value.get(key), have.get(key)
        raise InputError(f"{folder} was built with {name} = {_short(have)}, but {_short(value)} is asked for.", _RERUN)


def _refuse_shards(folder: Location, have: Mapping[str, str], value: Mapping[str, str]) -> None:
    for name in {**value, **have}:
        if name not in have:
            raise InputError(f"{folder} was built from other shards: it knows nothing of {name}.", _RERUN)
        if name not in value:
            raise InputError(f"{folder} was built from other shards: {name}, which it embeds, is not there.", _RERUN)
        if have[name] != value[name]:
            raise InputError(
                f"{folder} was built from other shards: {name} has sha256 {value[name][:12]}…, "
                f"the cache embeds {have[name][:12]}….",
                _RERUN,
            )


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text  # a sha256


_RERUN = "Run `cliprd cache` with these parameters and inputs (or `dvc repro`)."
