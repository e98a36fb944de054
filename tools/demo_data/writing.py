"""Tars with constant metadata, tasks in CLIP_benchmark's layout, checksums, and the move into place."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Sample:
    """One benchmark image: key, bytes, their format, and its class number or caption."""

    key: str
    data: bytes
    target: int | str
    form: str = "webp"


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], *, compress: bool = False) -> None:
    """A tar whose bytes depend on names and contents only; `compress` for the many small files of training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    data = buffer.getvalue()
    path.write_bytes(gzip.compress(data, 9, mtime=0) if compress else data)


def write_task(
    folder: Path, samples: Sequence[Sample], classes: Sequence[str] = (), templates: Sequence[str] = ()
) -> None:
    """Tar and counts, with class names and templates, or the mark of a retrieval task where there are no classes."""
    files = []
    for sample in samples:
        files.append((f"{sample.key}.{sample.form}", sample.data))
        files.append((f"{sample.key}.{'cls' if classes else 'txt'}", str(sample.target).encode()))
    write_tar(folder / "test" / "0.tar", files)
    texts = {"test/nshards.txt": ["1"], "dataset_type.txt": ["classification" if classes else "retrieval"]}
    if classes:
        texts |= {"classnames.txt": classes, "zeroshot_classification_templates.txt": templates}
    for name, lines in texts.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_sums(folder: Path) -> None:
    """sha256 of every file, each once: what is reached through a link is listed where it lies."""
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(parent.is_symlink() for parent in path.parents)
    ]
    (folder / SUMS).write_text("".join(sums))


def check_replaceable(output: Path) -> None:
    """Refuse to replace a folder that this tool did not write."""
    if output.exists() and not (output / SUMS).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise SystemExit(f"{output} exists and was not written by this tool: name another folder")


def move_into_place(built: Path, output: Path) -> None:
    """The old folder goes only when the new one is whole."""
    if output.exists():
        old = output.with_name(f".{output.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        output.rename(old)
        built.rename(output)
        shutil.rmtree(old)
    else:
        built.rename(output)
