"""Assigns unique keys: a sample keeps its own key, or gets one with its source's suffix if another source uses it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cliprd.data.keys import KeySet
from cliprd.data.shards import Sample

DUPLICATE_KEY = "duplicate_key"
DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Refusal:
    """Why a sample is left out: `reason` is `duplicate_key` or `duplicate`."""

    reason: str
    detail: str


class Naming:
    """Keys of a set that is packed source by source.

    img2dataset numbers its samples, so two downloads use the same keys for different pictures. If an earlier source
    has the key, the sample's key gets a suffix derived from its own source's name; if that earlier sample also has the
    same picture and captions, the new one is a duplicate. Within one source, the first sample with a key is kept.

    Args:
        keys: keys assigned so far.
        marks: one suffix a source, from `mark`, in order.
        kept: number of a finished source → its packed samples.
    """

    def __init__(self, keys: KeySet, marks: list[str], kept: Callable[[int], Iterator[Sample]]) -> None:
        self._keys, self._marks, self._kept = keys, marks, kept
        self._digested = 0  # sources whose contents are in `keys`

    def admit(self, sample: Sample, source: int) -> Sample | Refusal:
        """The sample with its final key, which is added to the set, or the reason why it is left out."""
        owner = self._keys.owner(sample.key)
        if owner is None:
            self._keys.add(sample.key, source)
            return sample
        if owner == source:
            return Refusal(DUPLICATE_KEY, "the first sample with this key is kept")
        self._digest_before(source)
        if self._keys.has_content(_digest(sample.key, sample)):
            return Refusal(DUPLICATE, "an earlier source has the same picture and captions under this key")
        marked = f"{sample.key}-{self._marks[source]}"
        if not self._keys.add(marked, source):
            return Refusal(DUPLICATE_KEY, "the first sample with this key is kept")
        return replace(sample, key=marked)

    def fits(
        self, names: Iterable[str], count: int, refused: Sequence[tuple[str, str]], source: int, *, undisturbed: bool
    ) -> bool:
        """Whether packing again would give these keys and refusals. Adds the keys to the set.

        Args:
            names: keys of the source's samples that an earlier run kept.
            count: number of `names`.
            refused: (key, reason) of the samples that it left out.
            source: its number.
            undisturbed: no earlier source has changed since then.
        """
        ending = f"-{self._marks[source]}"
        duplicates = [key for key, reason in refused if reason in {DUPLICATE, DUPLICATE_KEY}]

        def still_right() -> Iterator[str]:
            for name in names:
                if name.endswith(ending) and not (undisturbed and name.removesuffix(ending) in self._keys):
                    return
                yield name

        if duplicates and not undisturbed:
            return False
        return self._keys.add_all(still_right(), source) == count and all(key in self._keys for key in duplicates)

    def _digest_before(self, source: int) -> None:
        """Add the contents of all earlier sources; reads their shards again, so it runs only when keys collide."""
        for number in range(self._digested, source):
            ending = f"-{self._marks[number]}"
            samples = self._kept(number)
            self._keys.add_contents(_digest(sample.key.removesuffix(ending), sample) for sample in samples)
        self._digested = max(self._digested, source)


def mark(name: str) -> str:
    """Key suffix of a source, from its name below the common prefix of all sources."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _digest(key: str, sample: Sample) -> bytes:
    content = hashlib.blake2b(digest_size=16)
    for part in (key, sample.extension, *sample.captions):
        content.update(f"{len(part)}:{part}".encode())
    content.update(sample.image)
    return content.digest()
