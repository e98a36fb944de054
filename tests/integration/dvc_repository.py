"""A repository of a user: the shipped dvc.yaml on a handful of real images, with a finished teacher, and a remote."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from cliprd.models import config as configs
from cliprd.models.student import build_model
from tests.integration.pipeline import DEMO, ROOT, run

PARAMS = {
    "data": {"path": "data/train"},
    "augmentation": {"seed": 0},
    "cache": {"batch_size": 8},
    "student": {
        "config": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
            "text_cfg": {"context_length": 16, "vocab_size": 49408, "layers": 1, "width": 8, "heads": 2},
        }
    },
    "distill": {"epochs": 1, "batch_size": 4, "warmup_steps": 1, "log_every": 1},
    "ablation": {"methods": ["baseline"], "seeds": [0]},
    "benchmark": {"tasks": "data/benchmark", "protocols": ["standard"], "bootstrap": 40, "speed": False},
    "compare": {"reference": "baseline"},
    "tracking": {"uri": ""},
}
SAMPLES = 4  # of a raw shard


def raw_shard(folder: Path, number: int) -> None:
    """The `number`-th run of samples of the embedded images, as a raw tar."""
    path = folder / "data/train" / f"{number:05d}.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(DEMO / "train" / "00000.tar.gz") as tar, tarfile.open(path, "w") as out:
        for entry in tar.getmembers()[2 * SAMPLES * number : 2 * SAMPLES * (number + 1)]:
            out.addfile(entry, tar.extractfile(entry))


def write_teacher(path: Path) -> Path:
    """Weights of a finished teacher, outside the repository, as those of a model hub are."""
    torch.manual_seed(0)
    teacher = build_model(configs.named("ViT-T-16"), where="test").state_dict()
    save_file({name: value.contiguous() for name, value in teacher.items()}, path)
    return path


def make(folder: Path, weights: Path, url: str, endpoint: str) -> Path:
    """A git and DVC repository with three raw shards, all committed but what the pipeline makes, and an S3 remote."""
    folder.mkdir()
    for number in range(3):
        raw_shard(folder, number)
    task = folder / "data/benchmark/tuxpaint_photos"
    (task / "test").mkdir(parents=True)
    for file in (DEMO / "benchmark/tuxpaint_photos").glob("*.txt"):
        shutil.copy(file, task)
    (task / "test/nshards.txt").write_text("1\n")
    with (
        tarfile.open(DEMO / "benchmark/tuxpaint_photos/test/0.tar") as tar,
        tarfile.open(task / "test/0.tar", "w") as out,
    ):
        for entry in tar.getmembers()[:12]:
            out.addfile(entry, tar.extractfile(entry))
    tree = {**PARAMS, "teacher": {"name": f"open_clip:ViT-T-16:{weights}"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    for name in ("dvc.yaml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for command in (
        ["git", "init", "-q", "-b", "main", "."],
        ["git", "config", "user.name", "t"],
        ["git", "config", "user.email", "t@t"],
        ["dvc", "init", "-q"],
        ["dvc", "remote", "add", "-q", "-d", "storage", url],
        ["dvc", "remote", "modify", "-q", "storage", "endpointurl", endpoint],
    ):
        run(folder, *command)
    commit(folder, "start")
    return folder


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", message)
