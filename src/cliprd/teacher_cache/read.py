"""Opening a teacher cache: only against the shards, augmentation and teacher that it was made for."""

from __future__ import annotations

from cliprd import storage
from cliprd.artifact import manifest
from cliprd.artifact.pointer import resolve
from cliprd.data.shards import Shard, ShardSet
from cliprd.errors import InputError
from cliprd.models.encoder import Encoder
from cliprd.params import Augmentation
from cliprd.storage import Location
from cliprd.teacher_cache import fingerprint
from cliprd.teacher_cache.format import FORMAT, Rows, file_name, read_rows


class TeacherCache:
    """A finished cache, checked; here or in S3, from where one file at a time is fetched.

    Attributes:
        folder: where it is.
        fingerprint: of its manifest.
        dim: width of the embeddings.
        logit_scale: the teacher's, already exponentiated.
        views: augmented views of each image.
        teacher: id of the teacher.
        augmentation: whose crops it has seen.
    """

    def __init__(self, folder: Location, found: manifest.Manifest) -> None:
        self.folder = folder
        self._files = found.files
        self.fingerprint = found.fingerprint
        self.dim: int = found.facts["dim"]
        self.logit_scale: float = found.facts["logit_scale"]
        self.views: int = found.facts["views"]
        self.teacher: str = found.facts["teacher"]
        self.augmentation = fingerprint.augmentation_of(folder, found.facts)

    @classmethod
    def open(
        cls,
        location: Location,
        shards: ShardSet,
        augmentation: Augmentation | None = None,
        *,
        encoder: Encoder | None = None,
        views: int | None = None,
    ) -> TeacherCache:
        """Check every file against the manifest, and the manifest against what is asked for.

        Args:
            location: output of stage `cache`.
            shards: that it must embed, all of them and no others.
            augmentation: whose crops it must have seen; None: any.
            encoder: that must have made it, weights, preprocessing and tokenizer included; None: any.
            views: how many it must hold; None: any number.

        Raises:
            InputError: unfinished, damaged (the file is named) or made for something else (both values are named).
        """
        folder = resolve(location)
        found = manifest.verify(folder, stage="cache")
        teacher = fingerprint.teacher_facts(encoder) if encoder is not None else {}
        teacher.pop("logit_scale", None)  # fixed by the weights; its exp may differ in the last bit between devices
        expected = {
            "format": FORMAT,
            "dtype": fingerprint.DTYPE,
            **teacher,
            **({"views": views} if views is not None else {}),
            **({"augmentation": fingerprint.augmentation_facts(augmentation)} if augmentation else {}),
            "shards": {shard.name: shard.sha256 for shard in shards.shards},
        }
        fingerprint.refuse_other(folder, found.facts, expected)
        return cls(folder, found)

    def read(self, shard: Shard) -> Rows:
        """`(image [n, views, dim], text [n, captions, dim], captions [n])` of one shard, float16, memory-mapped.

        Raises:
            InputError: the file has another number of rows than the shard has samples.
        """
        name = file_name(shard)
        with storage.local_file(self.folder, name, **self._files[name]) as path:
            rows = read_rows(path)
        expected = (shard.samples, self.views, self.dim)
        if rows.image.shape != expected or len(rows.captions) != shard.samples:
            raise InputError(
                f"{storage.join(self.folder, name)} holds image rows {rows.image.shape}, expected {expected}.",
                "Delete the folder and run `cliprd cache` again (or `dvc repro`).",
            )
        return rows
