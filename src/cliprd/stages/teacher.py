"""`teacher`: settle which teacher is distilled, and train it where its plug-in does so."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from cliprd import files
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.workspace import Workspace
from cliprd.data.shards import ShardSet
from cliprd.models.encoder import CONFIG_FILE, describe, resolve_device
from cliprd.models.identity import shaping, weights_version
from cliprd.models.plugin import RESUME, code_of, plugin_of
from cliprd.models.teacher import build_teacher
from cliprd.params import Params
from cliprd.storage import Location


def run(params: Params, inputs: Mapping[str, Location], output: Location) -> Manifest:
    """Write `teacher.json`, and what a plug-in's training leaves (of the demo teacher `heads.safetensors`).

    Args:
        params: `teacher` is used, and `distill.device` places the work.
        inputs: `shards`, the folder of `prepare`: what a plug-in's teacher is trained on.
        output: folder to write.

    Raises:
        ParamsError, InputError, RetryableError: the teacher is unknown, damaged or cannot be fetched.
        MachineError: the teacher's packages are not installed.
    """
    teacher = params.teacher
    plugin = None if teacher.of_open_clip else plugin_of(teacher.name)
    version = weights_version(teacher)
    made_of = {"weights": version} if version else {}
    shards = ShardSet.open(inputs["shards"]) if plugin and plugin.train else None
    if shards is not None:
        made_of["shards"] = shards.fingerprint
    with Workspace(
        output,
        stage="teacher",
        code=("cliprd.stages.teacher", *code_of(teacher.name)),
        params={"teacher": shaping(teacher)},
        inputs=made_of,
        resume_files=[RESUME],
    ) as work:
        if work.finished:
            return work.finished
        device, settings = resolve_device(params.distill.device), teacher.own_settings
        facts: dict[str, Any]
        if plugin is None:
            encoder = build_teacher(teacher, device=device)
            for line in encoder.decisions:
                print(f"cliprd: teacher: {line}", file=sys.stderr)
            facts = {**describe(encoder), "quick_gelu": encoder.quick_gelu, "decided_by": encoder.decided_by}
            files.write_json(work.path / CONFIG_FILE, {**facts, "training": None})
            return work.finish(facts=facts)
        trained, training = (
            plugin.train(shards, work.path, settings, device, work.commit) if plugin.train else (None, None)
        )
        facts = {**describe(trained or plugin.load(work.path, settings, device)), "training": training}
        files.write_json(work.path / CONFIG_FILE, facts)
        return work.finish(facts=facts)
