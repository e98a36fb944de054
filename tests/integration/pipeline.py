"""A small real pipeline in a folder of its own: the shipped dvc.yaml on a few hundred of the embedded images."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "data" / "demo"
STAGES = ["prepare", "teacher", "cache", "distill", "benchmark-teacher", "benchmark", "compare"]

PARAMS = {
    "data": {"path": "data/train", "samples_per_shard": 100},
    "augmentation": {"scale": [0.6, 1.0]},
    "teacher": {"name": "aligned", "aligned": {"epochs": 2, "image_size": 64, "batch_size": 128}},
    "cache": {"views": 2, "batch_size": 32},
    "student": {
        "config": {
            "embed_dim": 32,  # not the teacher's width: projections are trained and saved too
            "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64, "head_width": 32},
            "text_cfg": {"context_length": 16, "vocab_size": 49408, "layers": 1, "width": 32, "heads": 2},
        }
    },
    "distill": {"epochs": 2, "batch_size": 48, "warmup_steps": 2, "checkpoint_every": 2, "log_every": 1},
    "ablation": {"methods": ["clip_kd", "clip_rd-exp"], "seeds": [0]},
    "benchmark": {"tasks": "data/benchmark", "bootstrap": 50, "fidelity_samples": 40, "speed": False},
    "compare": {"reference": "clip_kd"},
    "tracking": {"experiment": "small"},
}


def environment() -> dict[str, str]:
    """The caller's, with this interpreter's programs first and nothing that phones home."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def run(
    folder: Path, *command: str, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`; its output is shown where it fails. `env` is added to the environment."""
    result = subprocess.run(command, cwd=folder, env={**environment(), **(env or {})}, capture_output=True, text=True)
    assert not check or result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result


def head(source: Path, target: Path, samples: int) -> None:
    """The first samples of a tar."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(source) as tar, tarfile.open(target, "w") as out:
        for entry in tar.getmembers()[: 2 * samples]:
            out.addfile(entry, tar.extractfile(entry))


def make(folder: Path) -> Path:
    """A git and DVC repository with the shipped pipeline and a little data."""
    folder.mkdir()
    head(DEMO / "train" / "00000.tar.gz", folder / "data" / "train" / "00000.tar", 300)
    for task, samples in (("tuxpaint_photos", 60), ("tuxpaint_captions", 40)):
        for file in (DEMO / "benchmark" / task).glob("*.txt"):
            (folder / "data" / "benchmark" / task / "test").mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / "data" / "benchmark" / task)
        shutil.copy(DEMO / "benchmark" / task / "test" / "nshards.txt", folder / "data" / "benchmark" / task / "test")
        head(DEMO / "benchmark" / task / "test" / "0.tar", folder / "data/benchmark" / task / "test" / "0.tar", samples)
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False), encoding="utf-8")
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(ROOT / ".gitignore", folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for command in (
        ["git", "init", "-q", "."],
        ["dvc", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"],
    ):
        run(folder, *command)
    return folder


def kill_when(folder: Path, condition: Callable[[], bool], *command: str) -> bool:
    """Start a command, SIGKILL it and all its children once `condition` holds; False where it ended before."""
    log = (folder / "killed.log").open("ab")
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True)
    tick = threading.Event()
    try:
        while process.poll() is None:
            if condition():
                os.killpg(process.pid, signal.SIGKILL)
                return True
            tick.wait(0.01)
        return False
    finally:
        process.wait()
        log.close()


def manifests(folder: Path) -> dict[str, str]:
    """Every stage's manifest but the report's, which knows of timings."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.glob("work/**/manifest.json"))
    }
