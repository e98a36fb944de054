"""Which key a sample gets: its own where that is free, one with its source's mark where another source has it."""

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

    img2dataset numbers its samples, so two downloads have the same keys for different pictures. A later source's
    sample whose key an earlier source has gets the key with a mark made from its own source's name; if an earlier
    source has the same key with the same picture and captions, it is a duplicate. Within one source a key is one
    sample: the first is kept.

    Args:
        keys: those given so far.
        marks: of each source, from `mark`; in order.
        kept: number of a finished source → its packed samples.
    """

    def __init__(self, keys: KeySet, marks: list[str], kept: Callable[[int], Iterator[Sample]]) -> None:
        self._keys, self._marks, self._kept = keys, marks, kept
        self._digested = 0  # sources whose contents are known

    def admit(self, sample: Sample, source: int) -> Sample | Refusal:
        """The sample under the key that it has in the set, which is taken from now on, or why it has none."""
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
        """Whether packing anew would give these keys and refusals. Takes the keys.

        Args:
            names: keys of the samples that an earlier run has kept of the source, `count` of them.
            count: see `names`.
            refused: (key, reason) of those that it has left out.
            source: its number.
            undisturbed: all sources before are what they were then.
        """
        ending = f"-{self._marks[source]}"
        same = [key for key, reason in refused if reason in {DUPLICATE, DUPLICATE_KEY}]

        def still_right() -> Iterator[str]:
            for name in names:
                if name.endswith(ending) and not (undisturbed and name.removesuffix(ending) in self._keys):
                    return
                yield name

        if same and not undisturbed:
            return False
        return self._keys.add_all(still_right(), source) == count and all(key in self._keys for key in same)

    def _digest_before(self, source: int) -> None:
        """Only where keys meet: the shards of the sources before are read once more."""
        for number in range(self._digested, source):
            ending = f"-{self._marks[number]}"
            samples = self._kept(number)
            self._keys.add_contents(_digest(sample.key.removesuffix(ending), sample) for sample in samples)
        self._digested = max(self._digested, source)


def mark(name: str) -> str:
    """Of a source, by its name below what all sources have in common."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _digest(key: str, sample: Sample) -> bytes:
    made = hashlib.blake2b(digest_size=16)
    for part in (key, sample.extension, *sample.captions):
        made.update(f"{len(part)}:{part}".encode())
    made.update(sample.image)
    return made.digest()
