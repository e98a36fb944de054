"""Real inputs for the cache: shards made by `prepare` from noise, a small open_clip model with random weights."""

from pathlib import Path

from cliprd.artifact import manifest
from cliprd.models.student import build_student, load_student, save_student
from cliprd.params import Params
from cliprd.stages import prepare
from tests.data.pictures import encoded, noise, write_tar

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 24, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "layers": 1, "width": 16, "heads": 2},
}
SAMPLES = 26


def params(source: Path, **sections) -> Params:
    tree = {
        "data": {"path": str(source), "samples_per_shard": 6},
        "augmentation": {"scale": (0.3, 1.0), "seed": 5},
        "cache": {"views": 2, "batch_size": 8},
    }
    return Params.model_validate({key: {**tree.get(key, {}), **sections.get(key, {})} for key in {*tree, *sections}})


def write_source(folder: Path) -> Path:
    """Pictures of unequal size, one to three captions each, some of them shared by many."""
    members = []
    for i in range(SAMPLES):
        captions = [f"picture {i}", "a picture of noise", "noise, " * (i % 5 + 1)][: 1 + i % 3]
        members.append((f"{i:03d}.png", encoded(noise(30 + i, 50 - i, seed=i))))
        members.append((f"{i:03d}.txt", "\n".join(captions).encode()))
    return write_tar(folder / "source" / "0.tar", members).parent


def write_teacher(folder: Path, seed: int = 1) -> Path:
    """A finished model folder, as stage `distill` leaves one: an encoder like any other."""
    config = Params.model_validate({"student": {"config": CONFIG}}).student
    save_student(build_student(config, seed=seed), config, folder)
    manifest.write(folder, stage="distill", params={}, inputs={})
    return folder


def make(folder: Path) -> Params:
    """`folder/shards` and `folder/teacher`."""
    tree = params(write_source(folder))
    prepare.run(tree, {}, folder / "shards")
    write_teacher(folder / "teacher")
    return tree


def encoder(folder: Path):
    return load_student(folder / "teacher")
