"""Small real task folders and students for tests of the benchmark."""

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cliprd.models.student import build_student, load_student, save_student
from cliprd.params import Student

STUDENT = Student(
    config={
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "layers": 1, "width": 16, "heads": 2},
    }
)


def picture(seed, kind="png", size=(20, 17), mode="RGB"):
    """Bytes of a random picture."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "webp": "WEBP"}.get(kind, kind.upper()))
    return buffer.getvalue()


def write_tar(path: Path, files):
    """An uncompressed tar of (name, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def classification(root: Path, name="flags", *, n=24, classes=6, tars=2, kinds=("png", "webp", "jpg"), labels=None):
    """A classification task of random pictures."""
    folder = root / name
    labels = list(np.random.default_rng(0).integers(0, classes, n)) if labels is None else labels
    samples = [
        [(f"s{i:04d}.{kinds[i % len(kinds)]}", picture(i, kinds[i % len(kinds)])), (f"s{i:04d}.cls", str(c).encode())]
        for i, c in enumerate(labels)
    ]
    write_shards(folder, samples, tars)
    (folder / "classnames.txt").write_text("".join(f"colour number {c}\n" for c in range(classes)))
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\nthe {c}\n")
    return folder


def retrieval(root: Path, name="captions", *, captions=None, tars=1):
    """A retrieval task of random pictures."""
    folder = root / name
    if captions is None:
        captions = [[f"a thing called {i}", f"number {i * 7} on a wall"][: 1 + i % 2] for i in range(14)]
    samples = [
        [(f"k{i:04d}.png", picture(100 + i)), (f"k{i:04d}.txt", "\n".join(own).encode())]
        for i, own in enumerate(captions)
    ]
    write_shards(folder, samples, tars)
    (folder / "dataset_type.txt").write_text("retrieval\n")
    return folder


def write_shards(folder: Path, samples, tars):
    """`test/0.tar …` and `nshards.txt`."""
    for number, part in enumerate(np.array_split(np.arange(len(samples)), tars)):
        write_tar(folder / "test" / f"{number}.tar", [file for i in part for file in samples[i]])
    (folder / "test" / "nshards.txt").write_text(f"{tars}\n")


def student(folder: Path, *, seed=0, params=STUDENT):
    """A random student saved as an open_clip folder, and opened."""
    model = build_student(params, seed=seed)
    with torch.no_grad():  # larger weights: fresh ones map all texts to nearly one point
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    save_student(model, params, folder)
    return load_student(folder)


def unit(rows):
    """Rows scaled to length 1, float32."""
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
