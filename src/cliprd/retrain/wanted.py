"""The lineage that a student trained now would have; a champion's lineage is compared with it."""

from __future__ import annotations

import json
from typing import Any

from cliprd import files, lineage
from cliprd.artifact import identity
from cliprd.distill import sections
from cliprd.lineage import inputs
from cliprd.models.identity import shaping
from cliprd.models.plugin import code_of
from cliprd.params import Params


def lineage_now(params: Params) -> dict[str, Any]:
    """The lineage that a student trained now would have, as far as it is known without running a stage.

    Data, tasks and weights are examined as in `cliprd.lineage.inputs`.

    Raises:
        ParamsError, InputError: data, tasks or weights that the parameters name are missing.
        RetryableError: the network or the store failed.
    """
    present, code = inputs.look(params), sections.code(params)
    tree = {
        "schema": lineage.SCHEMA,
        "stage": "distill",
        "params": sections.sections(params),
        "code": identity.digest(*code),
        "code_parts": lineage.code_parts(code_of(params.teacher.name), code),
        "inputs": {
            "shards": {
                "stage": "prepare",
                "params": params.data.model_dump(mode="json"),
                "sources": present["data"],
            },
            "cache": {
                "stage": "cache",
                "params": params.model_dump(mode="json", include={"cache", "augmentation"}),
                "inputs": {
                    "teacher": {
                        "stage": "teacher",
                        "params": {"teacher": shaping(params.teacher)},
                        "inputs": present["teacher"],
                    }
                },
            },
        },
        "tasks": present["benchmark"],
    }
    return dict(json.loads(files.canonical(tree)))
