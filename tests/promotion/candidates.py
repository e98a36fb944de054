"""Students that open_clip loads, with benchmarks, for what keeps champions; and a process that promotes one."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from cliprd import files
from cliprd.artifact import manifest
from cliprd.params import Params, validate
from tests.report import folders

TASKS = [task for task in folders.tasks() if task.name in ("photos", "captions")]
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "layers": 1, "width": 16, "heads": 2},
}
ASKED = {"who": "somebody", "what": "a test"}


def write(root: Path, method: str, seed: int) -> tuple[Path, Path]:
    """Folders of a student and of its benchmark."""
    from cliprd.models.student import build_student, save_student

    tree = validate({"student": {"config": CONFIG}}, where="test").student
    student, benchmark = root / "students" / f"{method}-{seed}", root / "benchmark" / f"{method}-{seed}"
    sealed = folders.write_student(student, method, seed, steps=4)
    save_student(build_student(tree, seed=seed), tree, student)
    sealed = manifest.write(student, stage=sealed.stage, params=sealed.params, inputs=sealed.inputs, facts=sealed.facts)
    folders.write_benchmark(benchmark, method, seed, sealed, only=TASKS)
    files.write_json(benchmark / "lineage.json", lineage(sealed, method, seed))
    scored = manifest.read(benchmark)
    manifest.write(benchmark, stage=scored.stage, params=scored.params, inputs=scored.inputs)
    return student, benchmark


def lineage(sealed: manifest.Manifest, method: str, seed: int) -> dict[str, object]:
    """As far as the card tells it."""
    shards = {
        "fingerprint": sealed.inputs["shards"],
        "facts": {"samples": 640},
        "sources": [{"name": "00000.tar", "fingerprint": "a" * 64, "samples": 640}],
    }
    teacher = {"fingerprint": "b" * 64, "params": {"teacher": {"name": "aligned"}}}
    cache = {"fingerprint": sealed.inputs["cache"], "facts": {"dim": 16}, "inputs": {"teacher": teacher}}
    return {"schema": 1, "params": {"method": method, "seed": seed}, "inputs": {"shards": shards, "cache": cache}}


def params(place: str, uri: str = "", **promote: object) -> Params:
    """The tree of a place."""
    tracking = {"uri": uri, "experiment": "champions"}
    return validate({"promote": {"champion": place, **promote}, "tracking": tracking}, where="test")


def main(given: str) -> None:
    """Promote as told.

    With `stop`, a folder, wait inside the claim: `inside` is made there, and `go` waited for. With `looked`, make that
    file after each look at the others' claims.
    """
    from cliprd.errors import CliprdError
    from cliprd.promotion import champion, registry_claims

    task, parent = json.loads(given), os.getppid()
    registry_claims.PAUSE = 0.05
    registry_claims.LEASE = 600.0  # waiting for a test on a busy machine is not to look like a kill
    if task.get("stop"):
        here, real = Path(task["stop"]), registry_claims.Claim.check

        def stopping(claim: registry_claims.Claim) -> None:
            real(claim)
            (here / "inside").touch()
            while not (here / "go").exists():
                assert os.getppid() == parent  # else the test has failed
                time.sleep(0.02)

        registry_claims.Claim.check = stopping
    if task.get("looked"):
        looking = registry_claims._claims

        def looked(*arguments: object) -> object:
            found = looking(*arguments)
            Path(task["looked"]).touch()
            return found

        registry_claims._claims = looked
    tree = params(task["place"], task["uri"])
    decision = {"passed": True, "champion": task["champion"], "reason": "told so"}
    try:
        version = champion.publish(
            task["place"], tree, Path(task["student"]), [Path(task["benchmark"])], decision, task["asked_by"]
        )
        print(json.dumps({"version": version}))
    except CliprdError as error:
        print(json.dumps({"error": str(error), "code": error.exit_code}))


if __name__ == "__main__":
    main(sys.argv[1])
