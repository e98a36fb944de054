"""What the lineage of a student trained now would say: what a champion's lineage is compared with."""

from __future__ import annotations

import json
from typing import Any

from cliprd import files, lineage
from cliprd.artifact import identity
from cliprd.distill.sections import sections
from cliprd.lineage import inputs
from cliprd.models.identity import shaping
from cliprd.params import Params


def wanted(params: Params) -> dict[str, Any]:
    """What the lineage of a student trained now would say, as far as it can be known without making anything.

    Data, tasks and weights are looked at as `cliprd.lineage.inputs` says.

    Raises:
        ParamsError, InputError: data, tasks or weights that the parameters name are missing.
        RetryableError: the network or the store failed.
    """
    found = inputs.look(params)
    tree = {
        "schema": lineage.SCHEMA,
        "stage": "distill",
        "params": sections(params),
        "code": identity.digest("cliprd.stages.distill"),
        "code_parts": lineage.code_parts(),
        "inputs": {
            "shards": {
                "stage": "prepare",
                "params": params.data.model_dump(mode="json"),
                "sources": found["data"],
            },
            "cache": {
                "stage": "cache",
                "params": params.model_dump(mode="json", include={"cache", "augmentation"}),
                "inputs": {
                    "teacher": {
                        "stage": "teacher",
                        "params": {"teacher": shaping(params.teacher)},
                        "inputs": found["teacher"],
                    }
                },
            },
        },
        "tasks": found["benchmark"],
    }
    return dict(json.loads(files.canonical(tree)))
