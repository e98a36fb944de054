"""`distill`: train a student from shards and teacher cache, and leave a folder that plain open_clip loads.

For several processes it starts itself again in each (`python -m cliprd.stages.distill TASK`) through torchrun's
launcher; started by hand under torchrun, it joins. The leader (rank 0) does all that one process would have done.
Started on several machines (`cliprd.distill.machines`), it does so on each; all of them see inputs and output, in S3
or on a shared file system.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from cliprd import lineage, signals, storage
from cliprd import params as parameters
from cliprd.artifact import manifest
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.workspace import Workspace
from cliprd.data.shards import ShardSet
from cliprd.distill import device, distributed, machines, sections, terms
from cliprd.distill.checkpoint import FOLDER as CHECKPOINTS
from cliprd.distill.distributed import World
from cliprd.distill.division import Division
from cliprd.distill.effective import effective
from cliprd.distill.error_file import record_exception
from cliprd.distill.history import HISTORY, last_row
from cliprd.distill.launch import launch
from cliprd.distill.record import Record
from cliprd.distill.train import Report, Trained, train
from cliprd.errors import CliprdError
from cliprd.files import atomic_write
from cliprd.machine import end_with_parent
from cliprd.models.encoder import count_parameters
from cliprd.models.onnx import export_onnx
from cliprd.models.student import save_student, student_config
from cliprd.params import Params, parse_method
from cliprd.storage import Location
from cliprd.storage.content import learn
from cliprd.teacher_cache import TeacherCache

LOSS_FILE = "loss.safetensors"
COMMIT_EVERY = 60.0  # seconds


def run_id(params: Params) -> str:
    """Name of the training: `<method>-<seed>`."""
    return f"{params.distill.method}-{params.distill.seed}"


def run(params: Params, inputs: Mapping[str, Location], output: Location, *, report: Report | None = None) -> Manifest:
    """Write the student: `open_clip_config.json`, `open_clip_model.safetensors`, `loss.safetensors` (learned scales and
    projections), `image.onnx`, `text.onnx`, `history.csv`, `lineage.json` (see `cliprd.lineage`).

    While it trains, `.checkpoint/` holds the last two checkpoints; a run that was killed goes on from the newest. Its
    parameters, inputs or code having changed, the Workspace clears the folder, checkpoints included.

    Args:
        params: `student`, `distill` and `augmentation` are used.
        inputs: `shards` (folder of `prepare`) and `cache` (folder of `cache`).
        output: folder to write.
        report: called with each logged record. Processes that are launched here cannot reach it.

    Raises:
        InputError: shards, cache or a checkpoint are damaged or do not belong together.
        ParamsError: the parameters make no training, or a batch has fewer samples than there are processes.
        DivergedError: training left the finite numbers; the last good checkpoint is kept.
        RetryableError: one of several processes or machines was lost.
        ValueError: `report` with processes to launch.
    """
    with record_exception():
        terms.functions(params.distill)  # first: it may refuse
        group = machines.among()
        if group is None and distributed.launched():
            with distributed.join(device.resolve(params.distill).device) as world:
                shards, cache = world.share(_open(params, inputs) if world.leads else None)
                work = _workspace(params, output, shards, cache)
                if not world.leads:
                    return _follow(params, shards, cache, work.path, world)
                with work:
                    if finished := world.share(work.finished):
                        return finished
                    return world.share(_make(work, params, shards, cache, report, world))
        shards, cache = _open(params, inputs)
        work = _workspace(params, output, shards, cache)
        if group:
            if whole := work.look():  # one that comes back when the others have finished would wait for them in vain
                if group.rank == 0:
                    with work:  # removes what a kill after the manifest has left
                        pass
                return whole
            _launch(params, inputs, output, device.processes(params.distill), group)
            return manifest.read(output, stage="distill")
        with work:
            if work.finished:
                return work.finished
            processes = device.processes(params.distill)
            Division(shards.samples, params.distill.batch_size).check(processes)
            if processes == 1:
                return _make(work, params, shards, cache, report, World())
        if report is not None:
            raise ValueError("report: its calls do not cross to launched processes; set distill.processes to 1")
        _launch(params, inputs, output, processes)  # the leader takes the folder over
        return manifest.read(output, stage="distill")


def _open(params: Params, inputs: Mapping[str, Location]) -> tuple[ShardSet, TeacherCache]:
    """Both inputs, every file verified: once in a command, by the process that is started first."""
    shards = ShardSet.open(inputs["shards"])
    return shards, TeacherCache.open(inputs["cache"], shards, params.augmentation)


def _workspace(params: Params, output: Location, shards: ShardSet, cache: TeacherCache) -> Workspace:
    return Workspace(
        output,
        stage="distill",
        code=sections.code(params),
        params=sections.sections(params),
        inputs={"shards": shards.fingerprint, "cache": cache.fingerprint},
        resume_files=[CHECKPOINTS],
    )


def _make(
    work: Workspace, params: Params, shards: ShardSet, cache: TeacherCache, report: Report | None, world: World
) -> Manifest:
    output = work.path
    made_of = lineage.made_of(shards.folder, cache.folder)  # first: it may refuse
    in_force = effective(
        params.distill, samples=shards.samples, student_dim=int(student_config(params.student)["embed_dim"]),
        teacher_dim=cache.dim, runtime=device.resolve(params.distill),
    )  # fmt: skip
    trained = train(params, shards, cache, output, _committing(work, report), world, work.commit)
    save_student(trained.model, params.student, output)
    with atomic_write(output / LOSS_FILE) as file:
        state = {name: tensor.contiguous() for name, tensor in trained.loss.state_dict().items()}
        file.write(safetensors.torch.save(state))
    export_onnx(trained.model, output)
    facts = _facts(params, trained, output, work.inputs, in_force)
    lineage.write(output, lineage.of_student(work.params, facts, made_of, work.code))
    return work.finish(facts=facts)  # until its manifest stands, a rerun starts from the checkpoints


def _committing(work: Workspace, report: Report | None) -> Report:
    """Commits the history between checkpoints too, so that whoever waits for this training sees that it lives."""
    last = time.monotonic()

    def both(record: Record) -> None:
        nonlocal last
        if report is not None:
            report(record)
        if time.monotonic() - last > COMMIT_EVERY:
            last = time.monotonic()
            work.commit(HISTORY, manifest.VOLATILE_DIR)

    return both


def _follow(params: Params, shards: ShardSet, cache: TeacherCache, output: Path, world: World) -> Manifest:
    """Train along; the folder is the leader's, and is not touched."""
    finished: Manifest | None = world.share(None)
    if finished:
        return finished
    train(params, shards, cache, output, world=world)
    written: Manifest = world.share(None)
    return written


def _launch(
    params: Params,
    inputs: Mapping[str, Location],
    output: Location,
    processes: int,
    machines: machines.Nodes | None = None,
) -> None:
    task = {
        "params": params.model_dump(mode="json"),
        "inputs": {name: str(path) for name, path in inputs.items()},
        "output": str(output),
    }
    launch(__name__, task, processes, machines)


def _main(file: Path) -> int:
    """One of the processes that `_launch` has started; why it fails is told by the one that started it."""
    end_with_parent()
    task = json.loads(file.read_text(encoding="utf-8"))
    learn(task["verified"])
    tree = parameters.validate(task["params"], where=str(file))
    try:
        inputs = {name: storage.parse(path) for name, path in task["inputs"].items()}
        run(tree, inputs, storage.parse(task["output"]))
    except CliprdError as error:
        return error.exit_code
    except KeyboardInterrupt as stop:
        return signals.exit_code(stop)
    except Exception:
        return 1
    return 0


def _facts(
    params: Params,
    trained: Trained,
    output: Path,
    inputs: Mapping[str, str],
    in_force: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    d = params.distill
    last = last_row(output)
    visual: nn.Module = trained.model.visual  # type: ignore[assignment]
    return {
        "run": run_id(params),
        "method": parse_method(d.method)[0],
        "scale_mode": in_force["distill"]["scale_mode"],
        "seed": d.seed,
        "weights": in_force["distill"]["weights"],
        "steps": trained.steps,
        "samples_seen": trained.samples,
        "parameters": {
            "student": count_parameters([trained.model]),
            "image_tower": count_parameters([visual]),
            "loss": count_parameters([trained.loss]),
        },
        "final": {name: last[name] for name in ("loss", *trained.loss.term_names, "grad_norm")},
        "effective": dict(in_force),
        "inputs": dict(inputs),
    }


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
