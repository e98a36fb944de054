"""Divides an epoch into batches, and a batch among the ranks: every sample once, sizes that differ by at most one.

Piece n of k ends at `total * (n + 1) // k`. There is no small last batch, and no sample is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from cliprd.errors import ParamsError


def piece(total: int, number: int, pieces: int) -> slice:
    """Piece `number` of `total` items divided into `pieces`."""
    return slice(total * number // pieces, total * (number + 1) // pieces)


@dataclass(frozen=True)
class Division:
    """The batches of one epoch.

    Args:
        samples: of the training set.
        batch_size: largest size; batches are slightly smaller if it does not divide `samples`.
    """

    samples: int
    batch_size: int

    @property
    def steps(self) -> int:
        """Batches an epoch: ceil(samples / batch_size)."""
        return -(-self.samples // self.batch_size)

    def span(self, step: int) -> slice:
        """Positions, in the epoch's order, of the samples of batch `step`."""
        return piece(self.samples, step, self.steps)

    def size(self, step: int) -> int:
        """Number of samples of batch `step`."""
        span: slice = self.span(step)
        return int(span.stop - span.start)

    def check(self, processes: int) -> None:
        """Refuse a division that cannot be trained on.

        Raises:
            ParamsError: there are fewer than two samples, or a batch has fewer than `processes`.
        """
        if self.samples < 2:
            raise ParamsError(
                f"The set holds {self.samples} sample{'s' * (self.samples != 1)}: a contrastive loss needs two.",
                "Give more data.",
            )
        smallest = self.samples // self.steps
        if smallest < processes:
            raise ParamsError(
                f"distill.batch_size = {self.batch_size} divides {self.samples} samples into batches of {smallest}, "
                f"fewer than the {processes} processes.",
                f"Set distill.processes to {smallest} at most, or give a larger distill.batch_size or more data.",
            )
