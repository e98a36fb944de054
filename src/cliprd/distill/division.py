"""How an epoch is cut into batches, and a batch into the parts of the ranks: every sample once, all as equal as can be.

The first n items of k pieces end at `total * n // k`, so that pieces differ by one at most, follow from the position
alone and cover everything. A last batch of a few samples, or their loss, does not come up.
"""

from __future__ import annotations

from dataclasses import dataclass

from cliprd.errors import ParamsError


def piece(total: int, number: int, pieces: int) -> slice:
    """Piece `number` of `total` items cut into `pieces`."""
    return slice(total * number // pieces, total * (number + 1) // pieces)


@dataclass(frozen=True)
class Division:
    """The batches of one epoch.

    Args:
        samples: of the training set.
        batch_size: none is larger; most are smaller by a few where it does not divide the samples.
    """

    samples: int
    batch_size: int

    @property
    def steps(self) -> int:
        """Batches an epoch: ceil(samples / batch_size)."""
        return -(-self.samples // self.batch_size)

    def span(self, step: int) -> slice:
        """Places, in the epoch's order, of the samples of batch `step`."""
        return piece(self.samples, step, self.steps)

    def size(self, step: int) -> int:
        """Samples of batch `step`."""
        span: slice = self.span(step)
        return int(span.stop - span.start)

    def check(self, processes: int) -> None:
        """Refuse what makes no training.

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
                f"distill.batch_size = {self.batch_size} cuts {self.samples} samples into batches of {smallest}, "
                f"fewer than the {processes} processes.",
                f"Set distill.processes to {smallest} at most, or give a larger distill.batch_size or more data.",
            )
