"""What MLflow gets of a training once: its name, parameters, tags and data set, and the ablation it belongs to."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cliprd import files
from cliprd.artifact import manifest
from cliprd.artifact.manifest import Manifest
from cliprd.distill.sections import sections
from cliprd.formatting import flat
from cliprd.names import key as mlflow_key
from cliprd.names import visible
from cliprd.params import Params
from cliprd.report import markdown
from cliprd.tracking import election, parent
from cliprd.tracking.provenance import revisions
from cliprd.tracking.server import experiment_id

TRAINING = "cliprd.training"  # tag of a training's run: digest of the work and of where it is done
ABLATION = "cliprd.ablation"  # tag of a parent run: digest of what its children share
KIND = "cliprd.kind"  # tag: "ablation" of a parent, "training" of a child
NOTE = "mlflow.note.content"  # tag: MLflow's description of a run
CHILDREN = ". Its children"  # what follows in a parent's note is about its being a parent
_MACHINE = ("processes", "device", "precision")  # of `distill`: an ablation may run on several machines
_ARM = ("method", "seed", "scale_mode")
_BY_METHOD = ("max_scale", "project_task", "weights")  # in force or not, as the method has it


@dataclass(frozen=True, kw_only=True)
class Training:
    """All of it is JSON: it lies beside the student, so that another process can make the run.

    Attributes:
        name: of the run, `<method>-<seed>`.
        key: the same for the same work in the same place, and for nothing else.
        start: milliseconds since the epoch.
        params, tags: of the run.
        datasets: {"name", "digest", "source_type", "source", "profile"} each.
        ablation: {"key", "name", "params", "note", "tags"} of the parent; empty for a run without one. Where the
            training was begun in a run of others (`parent`), `above` is that run's id, and it is the parent.
    """

    name: str
    key: str
    start: int = field(default_factory=lambda: int(time.time() * 1000))
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Mapping[str, str], ...] = ()
    ablation: Mapping[str, Any] = field(default_factory=dict)


def describe(
    params: Params,
    *,
    key: str,
    shards: Manifest,
    cache: Manifest,
    device: str,
    processes: int,
    effective: Mapping[str, Mapping[str, Any]],
) -> Training:
    """The training of `params` on what the two manifests stand for.

    Args:
        key: see `Training`.
        shards, cache: of its inputs.
        device: in words.
        processes: how many share a batch.
        effective: what was in force (`distill.effective`).
    """
    d, shared = params.distill, sections(params)
    shared["distill"] = {name: v for name, v in shared["distill"].items() if name not in (*_ARM, *_MACHINE)}
    in_force = manifest.in_force(sections(params), {"effective": effective})["distill"]
    own = {name: in_force[name] for name in _BY_METHOD if name in in_force}
    weights = own.pop("weights", {})
    common_distill = {name: v for name, v in in_force.items() if name not in (*_ARM, *_MACHINE, *_BY_METHOD)}
    fingerprints = {"shards": shards.fingerprint, "cache": cache.fingerprint}
    before = {**cache.params, "data": shards.params}  # how data and cache were made their manifests know best
    tree = {**before, **shared, "distill": common_distill}
    leaves = ((name, value) for name, value in flat(tree) if value is not None)
    common = {mlflow_key(name): visible(value)[:6000] for name, value in leaves}  # 6000: MLflow's limit
    arm = {name: str(in_force[name]) for name in _ARM if name in in_force}
    arm |= {f"distill.{name}": str(value) for name, value in own.items()}
    arm |= {mlflow_key(f"weight/{term}"): f"{weight:g}" for term, weight in weights.items()}
    teacher = str(cache.facts.get("teacher", ""))
    tags = {
        KIND: "training",
        **{f"cliprd.{name}": value for name, value in fingerprints.items()},
        "cliprd.device": visible(device),
        "cliprd.processes": str(processes),
        **{name: visible(value) for name, value in revisions().items()},
    }
    digest = files.digest({**fingerprints, **shared})
    samples = shards.facts.get("samples", "?")
    return Training(
        name=f"{d.method}-{d.seed}",
        key=key,
        params={**common, **arm},
        tags=tags,
        datasets=(_dataset(shards, samples),),
        ablation={
            "key": digest,
            "name": f"ablation-{digest[:8]}",
            "params": common,
            "note": f"{samples} pairs, {d.epochs} epochs of batch {in_force['batch_size']}, learning rate {d.lr:g}"
            + (f", teacher {markdown.text(teacher)}" if teacher else "")
            + f"{CHILDREN} are the methods × seeds; what they share are its parameters.",
            "tags": {f"cliprd.{name}": value for name, value in fingerprints.items()},
            **({"above": above} if (above := parent.run_id()) else {}),
        },
    )


def _dataset(shards: Manifest, samples: Any) -> dict[str, str]:
    path = str(shards.params.get("path", "shards"))
    source = {"uri": path, "fingerprint": shards.fingerprint}
    return {
        "name": visible(path)[-500:],
        "digest": shards.fingerprint[:36],  # MLflow's limit; all of it is in the source
        "source_type": "s3" if path.startswith("s3://") else "local",
        "source": json.dumps(source),
        "profile": json.dumps({"samples": samples}),
    }


def ensure_run(client: Any, experiment: str, training: Training, run_id: str | None, *, resumed: bool) -> str:
    """Id of the training's run, created and described where that has not been done, or not completely.

    Args:
        experiment: its name.
        run_id: as far as it is known.
        resumed: the training was begun before: then its run may be finished already.
    """
    from mlflow.entities import RunTag

    place = experiment_id(client, experiment)
    own = {**training.tags, **_membership(training.ablation)}

    def unfinished() -> list[Any]:
        runs = election.found(client, place, TRAINING, training.key)
        return [run for run in runs if run.info.status != "FINISHED"]

    def create() -> Any:
        tags = {**own, TRAINING: training.key}
        return client.create_run(place, start_time=training.start, run_name=training.name, tags=tags)

    runs = election.found(client, place, TRAINING, training.key)
    ids = [str(run.info.run_id) for run in runs]
    if run_id not in ids:  # also where it was removed, or is another server's
        ended = resumed and ids and all(run.info.status == "FINISHED" for run in runs)
        run_id = ids[0] if ended else election.the_one(unfinished, create, client, place)
    _adopt(client, place, run_id, training)
    _add_params(client, run_id, training.params)
    _add_datasets(client, run_id, training.datasets)
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in own.items()])
    return run_id


def settle(client: Any, place: str, training: Training) -> None:
    """The parent is finished when none of its children runs; one of others is theirs to finish."""
    if not training.ablation or "above" in training.ablation:
        return
    parent_id = _parent(client, place, training)
    if any(run.info.status == "RUNNING" for run in election.children(client, place, parent_id)):
        client.update_run(parent_id, status="RUNNING")
    else:
        client.set_terminated(parent_id, "FINISHED")


def _adopt(client: Any, place: str, run_id: str, training: Training) -> None:
    """Hand the run to the parent that all agree on; where several were created at once that may soon be another."""
    while training.ablation:
        parent_id = training.ablation.get("above") or _parent(client, place, training)
        if client.get_run(run_id).data.tags.get(election.PARENT) == parent_id:
            return
        client.set_tag(run_id, election.PARENT, parent_id)


def _membership(ablation: Mapping[str, Any]) -> dict[str, str]:
    """Tags by which a training without a parent of its ablation's is found with the others, and its description."""
    if "above" not in ablation:
        return {}
    return {parent.MEMBER: ablation["key"], NOTE: ablation["note"].partition(CHILDREN)[0]}


def _parent(client: Any, place: str, training: Training) -> str:
    ablation = training.ablation
    tags = {ABLATION: ablation["key"], KIND: "ablation", NOTE: ablation["note"], **ablation["tags"]}

    def create() -> None:
        run = client.create_run(place, run_name=ablation["name"], tags=tags)
        _add_params(client, run.info.run_id, ablation["params"])

    return election.the_one(lambda: election.found(client, place, ABLATION, ablation["key"]), create, client, place)


def _add_params(client: Any, run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    client.log_batch(run_id, params=[Param(key, value) for key, value in params.items() if key not in known])


def _add_datasets(client: Any, run_id: str, datasets: tuple[Mapping[str, str], ...]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [DatasetInput(Dataset(**dataset), [InputTag("mlflow.data.context", "training")]) for dataset in datasets]
    with contextlib.suppress(NotImplementedError):
        client.log_inputs(run_id, inputs)
