"""A stage's face in a container: parameters as KFP hands them over, failures as one line and an exit code.

KFP itself is not imported here: artifacts come as folders, and what a UI should show is returned as plain values.
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
from typing import Any

from cliprd import params, plugins, storage
from cliprd.artifact import identity, manifest
from cliprd.artifact.folder import await_finished, fetch_folder
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.pointer import resolve, write_pointer
from cliprd.errors import CliprdError, InputError, ParamsError
from cliprd.files import digest
from cliprd.kubeflow.retry import attempts, here, reporting
from cliprd.kubeflow.values import whole_numbers
from cliprd.machine import limit_threads
from cliprd.models.plugin import code_in
from cliprd.params import Params
from cliprd.storage import Location, TakenOverError

GATE = "cliprd.promotion.gate"


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
    """Run one stage; what may heal is tried again here, so that the scheduler need not repeat what cannot.

    Args:
        stage: name of a module of `cliprd.stages`.
        sections: sections of the parameter tree; those left out keep their defaults.
        inputs: name → folder, as the stage takes them: here, `s3://`, or one that points there (`storage.resolve`).
        output: folder to write, here or `s3://`.
        store: s3:// prefix in which the stage works, so that a lost pod loses little; under it the folder's name is
            made of all that shapes its content, so that equal work is found done, whichever pipeline did it.
        content: what shapes the output beside sections, inputs and code: the fingerprint of data outside.
        keep: leave the content in the store, and in `output` only a pointer to it.
        options: of the stage.

    A failure ends the process: its message alone on stderr, its exit code as in `cliprd.errors`.
    """
    limit_threads()  # before the stage brings in torch
    with reporting():
        tree = tree_of(sections, where=stage)
        module = importlib.import_module(GATE if stage == "gate" else f"cliprd.stages.{stage}")
        folders = {name: storage.parse(path) for name, path in inputs.items()}
        if not store:
            made: Manifest = attempts(lambda: module.run(tree, folders, storage.parse(output), **options))
            return made
        url = _address(store, stage, sections, folders, [content, options])
        with _failing_at_once(f"{url}.failed.json"):
            made = attempts(lambda: _made_once(url, lambda: module.run(tree, folders, url, **options)))
        if keep:
            attempts(lambda: write_pointer(Path(output), url))
        else:
            shutil.copytree(attempts(lambda: fetch_folder(url)), output, dirs_exist_ok=True)
        return made


def distill_nodes(
    sections: Mapping[str, Any], inputs: Mapping[str, str], output: str, *, store: str, image: str
) -> Manifest:
    """`distill` by a job on `kubernetes.nodes` nodes, in the same place of the store as by this pod alone.

    Args:
        sections: as of `run`, and `kubernetes`.
        inputs: folders that lie in the store, or point there.
        store: s3:// prefix.
        image: the nodes'.
    """
    from cliprd.kubeflow.trainjob import watch
    from cliprd.kubeflow.trainjob.cluster import Cluster
    from cliprd.kubeflow.trainjob.spec import make

    with reporting():
        tree = tree_of(sections, where="distill_nodes")
        if not store:
            raise ParamsError("kubernetes.store is empty: many nodes meet in S3.", "Set it to an s3:// prefix.")
        folders = {name: attempts(lambda path=path: resolve(path)) for name, path in inputs.items()}  # type: ignore[misc]
        training = {name: section for name, section in sections.items() if name != "kubernetes"}
        url = _address(store, "distill", training, folders, ["", {}])
        job = make(tree, image, nodes=tree.kubernetes.nodes, output=url, form=tree.kubernetes.engine, **folders)
        with _failing_at_once(f"{url}.failed.json"):
            if attempts(lambda: storage.read_bytes(storage.join(url, manifest.NAME))) is None:
                watch.run(Cluster.here(), job)
            made = attempts(lambda: manifest.verify(url, stage="distill"))
        shutil.copytree(attempts(lambda: fetch_folder(url)), output, dirs_exist_ok=True)
        return made


def merge(sections: Mapping[str, Any], shards: str, parts: Sequence[str], output: str, *, store: str = "") -> Manifest:
    """`merge` of parts that lie anywhere."""
    with tempfile.TemporaryDirectory() as place:
        for number, part in enumerate(parts):
            Path(place, f"{number:05d}").symlink_to(Path(part).resolve())
        return run("merge", sections, {"shards": shards, "parts": place}, output, store=store, keep=bool(store))


def compare(
    sections: Mapping[str, Any], benchmarks: Sequence[str], students: Sequence[str], teacher: str, output: str
) -> Manifest:
    """`compare` of folders that lie anywhere: each student's manifest says its method and seed.

    `ablation.methods` and `ablation.seeds` are what was trained, in the order of `students`.
    """
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        trained: list[tuple[str, int]] = []
        with reporting():
            runs = {_name(folder, trained): folder for folder in map(here, students)}
            scores = {_benchmarked(folder): folder for folder in map(here, benchmarks)}
            baseline = here(teacher)
        for kind, folders in (("students", runs), ("benchmarks", {**scores, "teacher": baseline})):
            (room / kind).mkdir()
            for name, folder in folders.items():
                (room / kind / name).symlink_to(folder)
        methods, seeds = (list(dict.fromkeys(column)) for column in zip(*trained, strict=True))
        ablation = {**sections.get("ablation", {}), "methods": methods, "seeds": seeds}
        return run(
            "compare",
            {**sections, "ablation": ablation},
            {"benchmarks": str(room / "benchmarks"), "students": str(room / "students")},
            output,
        )


def tree_of(sections: Mapping[str, Any], *, where: str) -> Params:
    """Parameters of the sections that a step got; `where` names it in messages."""
    return params.validate({name: whole_numbers(section) for name, section in sections.items()}, where=where)


@contextlib.contextmanager
def _failing_at_once(note: str) -> Iterator[None]:
    """What cannot heal is noted, for Kubeflow repeats a step whatever it failed of: the repetition ends by the note."""
    if int(os.environ.get("KFP_RETRY_INDEX") or 0) == 0:
        attempts(lambda: storage.remove(note))
    elif data := attempts(lambda: storage.read_bytes(note)):
        found = json.loads(data)
        kinds = {kind.exit_code: kind for kind in CliprdError.__subclasses__()}
        raise kinds.get(found["exit_code"], CliprdError)(found["problem"], found["remedy"])
    try:
        yield
    except CliprdError as error:
        if not error.retryable:
            told = {"exit_code": error.exit_code, "problem": error.problem, "remedy": error.remedy}
            with contextlib.suppress(CliprdError):  # its own failure is not what is to be told
                storage.write_bytes(note, json.dumps(told).encode())
        raise


def _made_once(url: str, work: Callable[[], Manifest]) -> Manifest:
    """`work()`; or the same work by another step that began it later, which is let go on and waited for."""
    while True:
        try:
            return work()
        except TakenOverError:
            print(
                f"cliprd: another step has begun the same work in {url}; waiting for it.", file=sys.stderr, flush=True
            )
            if (made := await_finished(url)) is not None:
                return made


def _address(
    store: str, stage: str, sections: Mapping[str, Any], inputs: Mapping[str, Location], others: Sequence[Any]
) -> str:
    def fingerprint(folder: Location) -> Any:
        if isinstance(folder, Path) and not (folder / manifest.NAME).is_file():
            return [fingerprint(part) for part in sorted(folder.iterdir())]  # a folder of folders
        return manifest.read(folder).fingerprint

    found = {name: fingerprint(folder) for name, folder in inputs.items()}
    shaping = {name: whole_numbers(section) for name, section in sections.items() if name != "tracking"}
    code = identity.digest(f"cliprd.stages.{stage}", *_plugins(sections, inputs))
    name = digest([stage, shaping, found, code, *others])[:20]
    return storage.join(store, f"{stage}/{name}")


def _plugins(sections: Mapping[str, Any], inputs: Mapping[str, Location]) -> list[str]:
    """The modules of the plug-ins that a step runs: its teacher's, made now or before, and its loss terms'."""
    found = [manifest.read(folder) for name, folder in inputs.items() if name in ("teacher", "model")]
    modules = [module for made in found for module in code_in(made.stage, made.params)]
    modules += code_in("teacher", sections)
    weights = sections.get("distill", {}).get("weights") or {}
    return modules + [module for name in weights.get("extra") or {} for module in plugins.terms.code(name)]


def _name(folder: Path, trained: list[tuple[str, int]]) -> str:
    settings = manifest.read(folder, stage="distill").params["distill"]
    trained.append((settings["method"], settings["seed"]))
    return f"{settings['method']}-{settings['seed']}"


def _benchmarked(folder: Path) -> str:
    manifest.read(folder, stage="benchmark")
    model = json.loads((folder / "results.json").read_text(encoding="utf-8"))["model"]
    if model["method"] is None:
        raise InputError(f"{folder} is the benchmark of a teacher, not of a student.", "Check the pipeline's wiring.")
    return f"{model['method']}-{model['seed']}"
