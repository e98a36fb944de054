"""What `champion` needs of a place that keeps champions: a folder, here or in S3, or a model in MLflow's registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cliprd.promotion.package import Package

Entry = dict[str, Any]  # {"version", "asked_by", ...}: a champion of now or before, see `pointer`
Pointer = dict[str, Any]  # an Entry with "before" and "withdrawn", lists of entries, oldest first


@dataclass(frozen=True)
class Promotion:
    """What a version itself records of its promotion, so that a lost pointer can be restored.

    Attributes:
        before: the champion that it replaced; None where it was the first, or that is not known.
        decision: of the gate; empty where it is damaged or not kept.
        asked_by: `{"who", "what"}`.
    """

    before: str | None = None
    decision: dict[str, Any] = field(default_factory=dict)
    asked_by: dict[str, str] = field(default_factory=dict)


class Store(Protocol):
    """A place. Each method raises RetryableError where the store or server failed.

    Attributes:
        place: its address.
        pointer: what messages call the pointer.
    """

    place: str
    pointer: str

    def read(self) -> tuple[Pointer | None, Any]:
        """The pointer, and what `swap` recognises this state by; None where there is no pointer.

        Raises:
            LostPointer: it is damaged, or was edited. InputError: it cannot be read, or is of a newer cliprd.
        """

    def swap(self, pointer: Pointer, instead_of: Any) -> bool:
        """Replace the pointer in one step; False where its state is not the one that was read, and nothing changed."""

    def settle(self, pointer: Pointer) -> bool:
        """Write what follows from the pointer where it is not so yet. Returns whether anything was written."""

    def name(self, package: Package) -> str | None:
        """The version that holds the package, or would; None where that is not known before `put`."""

    def put(
        self, package: Package, decision: Mapping[str, Any], asked_by: Mapping[str, str], champion: Pointer | None
    ) -> str:
        """Keep a package with what the gate said of it in comparison with `champion`. Returns its version."""

    def benchmarks(self, entry: Entry) -> tuple[Path, ...]:
        """A version's benchmarks, fetched, checked to be those it was made of.

        Raises:
            InputError: something of it is missing, damaged or another version's.
        """

    def student(self, version: str) -> Path:
        """A version's student, fetched and checked. Errors as of `benchmarks`."""

    def check(self, entry: Entry) -> None:
        """Check that a version can be the champion: student and benchmarks. Errors as of `benchmarks`."""

    def marks(self, entry: Entry) -> list[str]:
        """What the student is recognised by (`package.marks_of`).

        Raises:
            InputError: the record of them is damaged.
        """

    def promotions(self) -> dict[str, Promotion]:
        """The versions that have been champion, as far as they record it themselves; the latest first."""

    def entry(self, version: str, promotion: Promotion) -> Entry:
        """The entry of one of `promotions`, for a pointer that is restored. Errors as of `benchmarks`."""

    def note(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep a small note."""

    def noted(self, name: str) -> dict[str, Any] | None:
        """The note of that name; None where there is none."""


def chain(version: str, promotions: Mapping[str, Promotion]) -> list[str]:
    """The champions before a version, the latest first."""
    older: list[str] = []
    while True:  # a record that was edited may lead in a circle
        before = promotions[version].before if version in promotions else None
        if before is None or before not in promotions or before in older or before == version:
            return older
        older.append(before)
        version = before
