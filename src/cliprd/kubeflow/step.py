"""A stage in a container: parameters as KFP passes them, errors as one line and an exit code.

KFP itself is not imported here: artifacts are folders, and `ui` returns what a page should show as plain values.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cliprd import params, plugins, storage
from cliprd.artifact import identity, manifest
from cliprd.artifact.folder import await_finished, fetch_folder
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.pointer import resolve, write_pointer
from cliprd.errors import CliprdError, InputError, ParamsError, of_exit_code
from cliprd.files import digest
from cliprd.kubeflow.retry import local_folder, reporting, with_retries
from cliprd.kubeflow.values import whole_numbers
from cliprd.machine import limit_threads
from cliprd.models.plugin import code_in
from cliprd.params import Params
from cliprd.storage import Location, TakenOverError
from cliprd.tracking import following, parent

GATE = "cliprd.promotion.gate"
NOT_SHAPING = {"tracking", "kubernetes"}  # sections that change no byte of a result


def run(
    stage: str,
    sections: Mapping[str, Any],
    inputs: Mapping[str, str],
    output: str,
    *,
    store: str = "",
    content: str = "",
    keep: bool = False,
    **options: Any,
) -> Manifest:
    """Run one stage; retryable errors are retried here, so that Kubeflow need not repeat the step.

    Args:
        stage: name of a module of `cliprd.stages`.
        sections: sections of the parameter tree; those left out keep their defaults.
        inputs: name → folder, as the stage takes them: local, `s3://`, or a pointer to one (`pointer.resolve`).
        output: folder to write, local or `s3://`.
        store: s3:// prefix in which the stage works, so that a lost pod loses little. The folder's name there is a
            digest of all that shapes its content, so that equal work of any pipeline is reused.
        content: what shapes the output beside sections, inputs and code: the fingerprint of external data.
        keep: leave the content in the store, and in `output` only a pointer to it.
        options: of the stage.

    An error ends the process: its message alone on stderr, its exit code as in `cliprd.errors`.
    """
    limit_threads()  # before the stage imports torch
    with reporting():
        tree = tree_of(sections, where=stage)
        module = importlib.import_module(GATE if stage == "gate" else f"cliprd.stages.{stage}")
        folders = {name: storage.parse(path) for name, path in inputs.items()}
        if not store:
            folder = storage.parse(output)
            with following(tree, stage, folders, folder):
                finished: Manifest = with_retries(module.run, tree, folders, folder, **options)
            return finished
        url = _address(store, stage, sections, folders, content, options)

        def work() -> Manifest:
            with following(tree, stage, folders, url):
                return with_retries(_done_once, url, lambda: module.run(tree, folders, url, **options))

        return _in_store(url, output, work, keep=keep)


def address(
    store: str, stage: str, sections: Mapping[str, Any], inputs: Mapping[str, str], *, content: str = ""
) -> str:
    """Folder of the store in which `run` of the same arguments works; empty without a store."""
    if not store:
        return ""
    with reporting():
        return _address(store, stage, sections, {name: storage.parse(path) for name, path in inputs.items()}, content)


def distill_nodes(
    sections: Mapping[str, Any], inputs: Mapping[str, str], output: str, *, store: str, image: str
) -> Manifest:
    """`distill` by a job on `kubernetes.nodes` nodes, in the same folder of the store as by this pod alone.

    Args:
        sections: as of `run`, and `kubernetes`.
        inputs: folders in the store, or pointers to such.
        output: as of `run`.
        store: s3:// prefix.
        image: image of the nodes.
    """
    from cliprd.kubeflow.trainjob import watch
    from cliprd.kubeflow.trainjob.cluster import Cluster
    from cliprd.kubeflow.trainjob.spec import job_objects

    with reporting():
        tree = tree_of(sections, where="distill_nodes")
        if not store:
            raise ParamsError("kubernetes.store is empty: many nodes share files in S3.", "Set it to an s3:// prefix.")
        folders = {name: with_retries(resolve, path) for name, path in inputs.items()}
        url = _address(store, "distill", sections, folders)
        objects = job_objects(
            tree, image, nodes=tree.kubernetes.nodes, output=url, form=tree.kubernetes.engine,
            unnamed=parent.variables(), **folders,
        )  # fmt: skip

        def work() -> Manifest:
            if with_retries(storage.read_bytes, storage.join(url, manifest.NAME)) is None:
                watch.run_job(Cluster.here(), objects)
            return with_retries(manifest.verify, url, stage="distill")

        return _in_store(url, output, work)


def merge(sections: Mapping[str, Any], shards: str, parts: Sequence[str], output: str, *, store: str = "") -> Manifest:
    """`merge` of parts in any folders."""
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(parts):
            Path(folder, f"{number:05d}").symlink_to(Path(part).resolve())
        return run("merge", sections, {"shards": shards, "parts": folder}, output, store=store, keep=bool(store))


def compare(
    sections: Mapping[str, Any], benchmarks: Sequence[str], students: Sequence[str], teacher: str, output: str
) -> Manifest:
    """`compare` of students and benchmarks in any folders; method and seed come from their manifests.

    `ablation.methods` and `ablation.seeds` are what was trained, in the order of `students`.
    """
    with reporting():
        runs = {_trained_run(folder): folder for folder in map(local_folder, students)}
        scores = {_benchmarked_run(folder): folder for folder in map(local_folder, benchmarks)}
        baseline = local_folder(teacher)
    methods, seeds = (list(dict.fromkeys(column)) for column in zip(*runs, strict=True))
    ablation = {**sections.get("ablation", {}), "methods": methods, "seeds": seeds}
    named = {f"students/{method}-{seed}": folder for (method, seed), folder in runs.items()}
    named |= {f"benchmarks/{method}-{seed}": folder for (method, seed), folder in scores.items()}
    with tempfile.TemporaryDirectory() as root:
        inputs = {kind: f"{root}/{kind}" for kind in ("benchmarks", "students")}
        for path in inputs.values():
            Path(path).mkdir()
        for name, folder in {**named, "benchmarks/teacher": baseline}.items():
            Path(root, name).symlink_to(folder)
        return run("compare", {**sections, "ablation": ablation}, inputs, output)


def tree_of(sections: Mapping[str, Any], *, where: str) -> Params:
    """Parameters of a step's sections; `where` names it in messages."""
    return params.validate({name: whole_numbers(section) for name, section in sections.items()}, where=where)


def _in_store(url: str, output: str, work: Callable[[], Manifest], *, keep: bool = False) -> Manifest:
    """Do the work at `url` of the store, then point `output` to it (`keep`) or copy it there."""
    with _failing_at_once(f"{url}.failed.json"):
        finished = work()
    if keep:
        with_retries(write_pointer, Path(output), url)
    else:
        shutil.copytree(with_retries(fetch_folder, url), output, dirs_exist_ok=True)
    return finished


@contextlib.contextmanager
def _failing_at_once(record: str) -> Iterator[None]:
    """A step may be repeated after any error: a non-retryable one is recorded, and the repetition raises it again."""
    if int(os.environ.get("KFP_RETRY_INDEX") or 0) == 0:
        with_retries(storage.remove, record)
    elif data := with_retries(storage.read_bytes, record):
        known = json.loads(data)
        raise of_exit_code(known["exit_code"])(known["problem"], known["remedy"])
    try:
        yield
    except CliprdError as error:
        if not error.retryable:
            fields = {"exit_code": error.exit_code, "problem": error.problem, "remedy": error.remedy}
            with contextlib.suppress(CliprdError):  # it must not hide the error itself
                storage.write_bytes(record, json.dumps(fields).encode())
        raise


def _done_once(url: str, work: Callable[[], Manifest]) -> Manifest:
    """`work()`; or the result of another step that began the same work later and took it over."""
    while True:
        try:
            return work()
        except TakenOverError:
            print(
                f"cliprd: another step has begun the same work in {url}; waiting for it.", file=sys.stderr, flush=True
            )
            if (finished := await_finished(url)) is not None:
                return finished


def _address(
    store: str,
    stage: str,
    sections: Mapping[str, Any],
    inputs: Mapping[str, Location],
    content: str = "",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """The folder of a step's work in the store; arguments as of `run`, whose content and options are `others`."""

    def fingerprint(folder: Location) -> Any:
        if isinstance(folder, Path) and not (folder / manifest.NAME).is_file():
            return [fingerprint(part) for part in sorted(folder.iterdir())]  # a folder of folders
        return manifest.read(folder).fingerprint

    fingerprints = {name: fingerprint(folder) for name, folder in inputs.items()}
    shaping = {name: whole_numbers(section) for name, section in sections.items() if name not in NOT_SHAPING}
    code = identity.digest(f"cliprd.stages.{stage}", *_plugins(sections, inputs))
    name = digest([stage, shaping, fingerprints, code, content, dict(options)])[:20]
    return storage.join(store, f"{stage}/{name}")


def _plugins(sections: Mapping[str, Any], inputs: Mapping[str, Location]) -> list[str]:
    """Modules of the plug-ins that a step runs: its teacher's, trained now or before, and its loss terms'."""
    manifests = [manifest.read(folder) for name, folder in inputs.items() if name in ("teacher", "model")]
    modules = [module for item in manifests for module in code_in(item.stage, item.params)]
    modules += code_in("teacher", sections)
    weights = sections.get("distill", {}).get("weights") or {}
    return modules + [module for name in weights.get("extra") or {} for module in plugins.terms.code(name)]


def _trained_run(folder: Path) -> tuple[str, int]:
    settings = manifest.read(folder, stage="distill").params["distill"]
    return settings["method"], settings["seed"]


def _benchmarked_run(folder: Path) -> tuple[str, int]:
    manifest.read(folder, stage="benchmark")
    model = json.loads((folder / "results.json").read_text(encoding="utf-8"))["model"]
    if model["method"] is None:
        raise InputError(f"{folder} is the benchmark of a teacher, not of a student.", "Check the pipeline's wiring.")
    return model["method"], model["seed"]
