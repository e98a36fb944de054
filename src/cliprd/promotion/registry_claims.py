"""One at a time may change a model's champion, though MLflow's registry has neither locks nor compare-and-set.

A claim is a tag on a model version, under a unique name, so no process overwrites another's. A process that wants to
change the champion writes a claim, then reads all, and continues only if its own is the only one. Of two at once at
least one reads after both have written, and sees the other: they never both continue. So that they do not both give
way for ever, the earlier version's claim stays and waits; the later one's is withdrawn. (As in Lamport's bakery.)

A claim that is `LEASE` seconds old is a killed process's, and is removed by those that wait for it, by their own clock.
The process that has one must finish in half of that, and calls `Claim.check` before the one step that counts.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cliprd.errors import RetryableError

PREFIX = "cliprd.claim."
LEASE = 60.0  # seconds
PATIENCE = 300.0  # seconds for others to finish
PAUSE = 0.2  # seconds between two looks, and up to twice that

Key = tuple[int, str]  # version and tag: what claims are ordered by


class Claim:
    """The right to change the champion of a model, while it lasts.

    Attributes:
        key: of the present claim; None where it has none.
    """

    def __init__(self, client: Any, name: str, version: str, content: str) -> None:
        self._client, self._name, self._version, self._content = client, name, version, content
        self._written = 0.0
        self.key: Key | None = None

    @property
    def age(self) -> float:
        """Seconds since it was written."""
        return time.monotonic() - self._written

    def renew(self) -> None:
        """Claim under a new name; an older claim is withdrawn."""
        self.withdraw()
        tag, self._written = PREFIX + secrets.token_hex(8), time.monotonic()
        self.key = (int(self._version), tag)  # first: a request whose reply is lost may have been done
        self._client.set_model_version_tag(self._name, self._version, tag, self._content)

    def withdraw(self) -> None:
        """Remove the claim, where there is one."""
        if self.key is not None:
            _remove(self._client, self._name, self.key)
            self.key = None

    def check(self) -> None:
        """Raise RetryableError if others may have taken the claim for a killed process's."""
        if self.age > LEASE / 2:
            raise RetryableError(f"models:/{self._name}: the registry took {self.age:.0f} s.", "Run the command again.")


@contextlib.contextmanager
def claimed(client: Any, name: str, version: str, content: Mapping[str, str]) -> Iterator[Claim]:
    """Wait until no other change of this model's champion is in progress, and keep others out.

    Args:
        client: MLflow's.
        name: of the model.
        version: on which the claim is written.
        content: of the claim, for people.

    Raises:
        RetryableError: others did not finish in `PATIENCE` seconds.
    """
    claim = Claim(client, name, version, json.dumps(dict(content), sort_keys=True))
    begun = time.monotonic()
    first_seen: dict[Key, float] = {}
    try:
        while True:
            claims = _claims(client, name)
            now = time.monotonic()
            others = sorted(claims - {claim.key})
            if not others:
                if claim.key in claims and claim.age < LEASE / 4:
                    break
                claim.renew()
                continue
            if now - begun > PATIENCE:
                raise RetryableError(
                    f"models:/{name}: another promotion is in progress and does not end.", "Try again."
                )
            first_seen = {key: first_seen.get(key, now) for key in others}
            for key, since in first_seen.items():
                if now - since > LEASE:
                    _remove(client, name, key)
            if claim.key is not None and claim.key > others[0]:
                claim.withdraw()
            elif claim.key is not None and claim.age > LEASE / 4:  # it must not look like a killed process's
                claim.renew()
            time.sleep(PAUSE * random.uniform(1, 2))  # noqa: S311 (no secret)
        yield claim
    finally:
        claim.withdraw()


def _claims(client: Any, name: str) -> set[Key]:
    versions = client.search_model_versions(f"name = '{name}'")
    return {(int(each.version), tag) for each in versions for tag in each.tags if tag.startswith(PREFIX)}


def _remove(client: Any, name: str, key: Key) -> None:
    """Delete a claim; one that is gone already is no error."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # what stays, expires
        client.delete_model_version_tag(name, str(key[0]), key[1])
