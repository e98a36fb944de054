"""WebDataset shards, which `prepare` writes and later stages read, with an index of sample counts and sha256."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from cliprd import files, storage
from cliprd.artifact import manifest
from cliprd.artifact.pointer import resolve
from cliprd.data.tar import damaged, tar_files
from cliprd.errors import InputError
from cliprd.files import atomic_write
from cliprd.storage import Location

INDEX = "index.json"


@dataclass(frozen=True)
class Sample:
    """One image with its captions.

    Attributes:
        key: unique in the set; without dots or slashes, as WebDataset requires.
        image: encoded bytes.
        extension: of the image, without the dot.
        captions: at least one, none empty.
    """

    key: str
    image: bytes
    extension: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Shard:
    """One tar of a set."""

    name: str
    samples: int
    size: int
    sha256: str

    @property
    def stem(self) -> str:
        """Name without `.tar`; other files of the shard are named after it."""
        return self.name.removesuffix(".tar")


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Write `KEY.<extension>` and `KEY.txt` (one caption a line); equal samples give equal bytes."""
    with atomic_write(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            _add(tar, f"{sample.key}.{sample.extension}", sample.image)
            _add(tar, f"{sample.key}.txt", "\n".join(sample.captions).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # owner, mode and time are constants
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
    tar.members.clear()  # type: ignore[attr-defined]  # `tarfile` keeps every entry, half a kilobyte each


def read_shard(path: Path) -> Iterator[Sample]:
    """Samples of a tar that `write_shard` wrote, in order, streaming.

    Raises:
        InputError: the tar is damaged or not of that form.
    """
    image: tuple[str, str, bytes] | None = None
    for name, data in tar_files(path):
        key, _, extension = name.partition(".")
        if extension != "txt":
            image = (key, extension, data)
        elif image is None or image[0] != key:
            raise InputError(f"{path}: '{name}' has no image.", "Run `cliprd prepare` again.")
        else:
            yield Sample(key, image[2], image[1], _captions(path, data))


def read_captions(path: Path) -> Iterator[tuple[str, ...]]:
    """Captions of each sample of a shard, in order. Images are skipped."""
    return (_captions(path, data) for _, data in tar_files(path, only=".txt"))


def read_keys(path: Path) -> Iterator[str]:
    """Keys of a shard's samples, in order. Contents are skipped."""
    return (name.removesuffix(".txt") for name, _ in tar_files(path, only=".txt"))


def _captions(path: Path, data: bytes) -> tuple[str, ...]:
    try:
        return tuple(data.decode().split("\n"))
    except UnicodeDecodeError as error:
        raise damaged(path, error) from error


class ShardSet:
    """The output folder of `prepare`, local or in S3; from S3 one shard at a time is downloaded."""

    def __init__(self, folder: Location, fingerprint: str, shards: tuple[Shard, ...]) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.shards = shards
        self.samples = sum(shard.samples for shard in shards)

    @classmethod
    def open(cls, location: Location) -> ShardSet:
        """Check the folder against its manifest and open it.

        Raises:
            InputError: incomplete, damaged (the message names the file), or of another stage.
        """
        folder = resolve(location)
        verified = manifest.verify(folder, stage="prepare")
        with storage.local_file(folder, INDEX, **verified.files[INDEX]) as path:
            index = json.loads(path.read_text(encoding="utf-8"))
        shards = tuple(
            Shard(
                item["name"],
                item["samples"],
                verified.files[item["name"]]["size"],
                verified.files[item["name"]]["sha256"],
            )
            for item in index["shards"]
        )
        return cls(folder, verified.fingerprint, shards)

    def part(self, number: int, parts: int) -> ShardSet:
        """Part `number` (from 0) of the shards, divided into `parts` consecutive runs whose sizes differ by at most 1.

        It keeps the fingerprint of the complete set.
        """
        first, last = (len(self.shards) * index // parts for index in (number, number + 1))
        return ShardSet(self.folder, self.fingerprint, self.shards[first:last])

    def file(self, shard: Shard) -> AbstractContextManager[Path]:
        """One shard as a file on this machine; see `storage.local_file`."""
        return storage.local_file(self.folder, shard.name, size=shard.size, sha256=shard.sha256)

    def where(self, shard: Shard) -> str:
        """A shard's location, for messages."""
        return storage.join(self.folder, shard.name)

    def captions(self, shard: Shard) -> Iterator[tuple[str, ...]]:
        """Captions of each sample of one shard, in order. Images are skipped."""
        with self.file(shard) as path:
            yield from read_captions(path)

    def read(self, shard: Shard) -> Iterator[Sample]:
        """Samples of one shard in their fixed order, streaming.

        Raises:
            InputError: the tar is damaged, or its number of samples is not that of the index.
        """
        count = 0
        with self.file(shard) as path:
            for sample in read_shard(path):
                count += 1
                yield sample
        if count != shard.samples:
            raise InputError(
                f"{self.where(shard)} holds {count} samples, expected {shard.samples}.",
                f"Delete {self.folder} and run `cliprd prepare` again.",
            )


def write_index(folder: Path, shards: Iterable[Shard]) -> None:
    """Write `index.json`: shards in order, with their counts."""
    entries = [asdict(shard) for shard in shards]
    files.write_json(folder / INDEX, {"samples": sum(item["samples"] for item in entries), "shards": entries})
