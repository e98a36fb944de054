"""Trainings for the tests of tracking: inputs of stage `distill`, and what a training leaves while it works."""

import contextlib
import time

from cliprd import params, tracking
from cliprd.artifact import manifest
from cliprd.distill.history import History
from cliprd.distill.record import Record
from cliprd.distill.sections import sections

FACTS = {"prepare": {"samples": 300}, "cache": {"dim": 8, "teacher": "a teacher"}}


def inputs(folder):
    """Finished folders `shards` and `cache`, as far as a reader looks at them."""
    folders = {"shards": folder / "shards", "cache": folder / "cache"}
    for stage, path in zip(FACTS, folders.values(), strict=True):
        if not path.exists():
            path.mkdir(parents=True)
            manifest.write(path, stage=stage, params={"path": "pairs"}, inputs={}, facts=FACTS[stage])
    return folders


def tree(uri, experiment="cliprd", **sections):
    return params.validate({"tracking": {"uri": uri, "experiment": experiment}, **sections}, where="test")


def record(step, loss=1.0, **changes):
    values = {
        "step": step,
        "epoch": 0,
        "lr": 1e-3,
        "terms": {"task": loss, "fd": 0.5},
        "scales": {"student_scale": 14.3, "cross_scale": 2.66},
        "grad_norm": 0.1,
        "images_per_second": 400.0,
        "data_wait": 0.01,
        "time": int(1000 * time.time()),
    }
    return Record(**{**values, **changes})


@contextlib.contextmanager
def training(settings, given, folder):
    """A training that is followed, in a folder of stage `distill`; yields what writes a record to its history."""
    with tracking.following(settings, "distill", given, folder):
        with contextlib.ExitStack() as open_files:
            history = []

            def write(one):
                if not history:
                    history.append(History(folder, list(one.terms), list(one.scales), keep_to=one.step - 1))
                    open_files.callback(history[0].close)
                history[0].append(one)

            yield write
        finish(settings, folder)


def finish(settings, folder, **facts):
    """The manifest of a trained student."""
    name = f"{settings.distill.method}-{settings.distill.seed}"
    about = {"run": name, "method": settings.distill.method, "seed": settings.distill.seed, **facts}
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write(folder, stage="distill", params=sections(settings), inputs={}, facts=about)
