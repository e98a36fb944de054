"""Several processes that train one student, each on its slice of every batch (slices differ by one row at most).

The scheme: a rank embeds its slice; all embeddings are gathered, in the order of the batch; every rank computes the
loss of the whole batch. Let L be that loss and W the number of ranks. A rank's gradient of the loss's own parameters
and of the logit scale is then ∂L/∂p, the same everywhere, while that of a tower has only what came through its slice.
`gather` multiplies the latter by W on its way back, so that the mean over ranks, which DistributedDataParallel takes of
all gradients alike, is ∂L/∂θ exactly: the training is the same on any number of processes, but for rounding. What each
rank computes twice is the N×N part, which is small beside the towers; nothing is sent on the way back but gradients.

Ranks and addresses come from torchrun's environment variables; without them a process is alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from cliprd.distill.division import piece
from cliprd.distill.error_file import end_at_once
from cliprd.distill.heartbeat import EVERY, MISSED, Heartbeat
from cliprd.errors import EnvironmentError_, ParamsError, RetryableError

# For a rank that lives and does not come: one that dies closes its connections, and torchrun ends the others at once;
# one that hangs gives no more signs of life (see `heartbeat`). Between two collectives lies at most the leader's
# longest work alone, a checkpoint or the student's export.
TIMEOUT = timedelta(minutes=10)
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")

T = TypeVar("T")


class LostContactError(RetryableError):
    """The other ranks are gone: what this rank sees of a failure elsewhere, never its cause."""


@dataclass(frozen=True)
class World:
    """This process among those that train together; alone, all methods hand back what they get.

    Attributes:
        rank: 0 to size - 1; 0 leads: it alone owns the output folder, logs and reports.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def part(self, rows: int) -> slice:
        """Of a batch of `rows` those that are this rank's; gathering in order of rank gives the batch back."""
        return piece(rows, self.rank, self.size)

    def gather(self, x: Tensor, rows: int, *, summed: bool = False) -> Tensor:
        """Slices `part(rows)` of all ranks, `[about rows / W, D]`, as `[rows, D]`.

        The gradient that comes back must be of a loss that every rank computes alike; this rank's slice gets its part
        of it, times W (see above).

        Args:
            summed: the gradient is of this rank's share of the loss (see `total`): the slice gets the sum over ranks.
        """
        if self.size == 1:
            return x
        gathered: Tensor = _Gather.apply(x, rows, self, summed)  # type: ignore[no-untyped-call]
        return gathered

    def total(self, x: Tensor) -> Tensor:
        """The sum over ranks of their shares of a loss; all must go back from it alike.

        Each share gets W times the gradient, so that after `gather(..., summed=True)` and the mean over ranks all that
        trains has that of the sum.
        """
        if self.size == 1:
            return x
        summed: Tensor = _Total.apply(x, self.size)  # type: ignore[no-untyped-call]
        return summed

    def share(self, value: T | None) -> T:
        """The leader's `value` on every rank (pickled between our own processes); that of the others is ignored."""
        box: list[Any] = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        shared: T = box[0]
        return shared

    def agree(self, numbers: Tensor) -> Tensor:
        """The leader's numbers, in place: should two GPUs differ in a last digit, decisions still do not."""
        if self.size > 1:
            dist.broadcast(numbers, src=0)
        return numbers

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module`, whose forward pass must use all that trains; its gradients become the mean over ranks.

        Parameters and buffers start as the leader's; the latter are not sent again: every rank comes to the same.
        `static_graph` because some losses leave a parameter out (the logit scale where neither task nor hrd has a
        weight): it is found once, in the first step, instead of by a search in each.
        """
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(
            module, forward_sync_buffers=False, static_graph=True, gradient_as_bucket_view=True
        )

    def start_alike(self, module: nn.Module) -> None:
        """Parameters and buffers become the leader's: what `wrap` does, for a module that is not wrapped."""
        if self.size > 1:
            with torch.no_grad():
                for tensor in [*module.parameters(), *module.buffers()]:
                    dist.broadcast(tensor, src=0)

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Gradients become their mean over ranks, in place: what a wrapped module does while it goes back."""
        if self.size == 1:
            return
        for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
            work.wait()
        for gradient in gradients:
            gradient /= self.size

    def synchronise_norms(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model` with batch norms whose statistics are the whole batch's; parameters and their names stay.

        Raises:
            ParamsError: it has some, and the device is a CPU, where torch has no synchronised ones.
        """
        if self.size == 1 or not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            return model
        if device.type == "cpu":
            raise ParamsError(
                f"The student has batch norms, whose statistics cannot be shared by {self.size} processes on a CPU.",
                "Set distill.processes to 1, train on GPUs, or take a student without batch norms (a ViT).",
            )
        from timm.layers import convert_sync_batchnorm  # torch's own would drop the activations of timm's layers

        converted: nn.Module = convert_sync_batchnorm(model)
        return converted

    def seed(self, seed: int, step: int) -> None:
        """Give the followers random numbers of their own, from `step` on: equal dropout masks on all ranks would be one
        mask repeated. Only with dropout does a training depend on the number of processes."""
        if not self.leads:
            torch.manual_seed(((seed * 1_000_003 + step) * 65_536 + self.rank) % 2**63)


def launched() -> bool:
    """Whether torchrun, or another launcher that sets its variables, has started this process."""
    return "WORLD_SIZE" in os.environ


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Meet the other processes that the environment names; NCCL between GPUs, gloo between CPUs.

    Raises:
        EnvironmentError_: no GPU is left for this process.
        LostContactError: another rank died or hangs; the cause is told where it is.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size == 1:
        yield World()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise EnvironmentError_(
                f"Process {local} of this machine has no GPU: torch sees {torch.cuda.device_count()}.",
                "Give torchrun --nproc-per-node as many as there are.",
            )
        torch.cuda.set_device(local)
    elif "OMP_NUM_THREADS" not in os.environ:  # torch would take all cores for each process
        here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        torch.set_num_threads(max(1, torch.get_num_threads() // here))
    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=TIMEOUT))
        # gloo beside NCCL: objects travel between CPUs
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        with Heartbeat(store.clone(), rank, size, lambda other: end_at_once(_silent(rank, size, other))):
            yield World(rank, size)
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        line = " ".join(str(error).split())[:200]
        raise LostContactError(
            f"Rank {rank} of {size} lost contact with the others: {line}.",
            "The same command goes on from the last checkpoint.",
        ) from error
    dist.destroy_process_group()  # not after a failure: it could wait for ranks that are gone


def _silent(rank: int, size: int, other: int) -> RetryableError:
    """No LostContactError: this rank is the one that knows the cause, though the launcher will see `other` killed."""
    return RetryableError(
        f"Rank {rank} of {size} lost contact with rank {other}: no sign of life for {EVERY * MISSED:.0f} seconds.",
        "The same command goes on from the last checkpoint.",
    )


def _is_loss(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in _LOST)


class _Gather(torch.autograd.Function):
    """All ranks' slices, concatenated; see `World.gather`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int, world: World, summed: bool) -> Tensor:
        ctx.rows, ctx.world, ctx.summed = rows, world, summed
        largest = -(-rows // world.size)  # slices travel equally long: a shorter one is padded, and cut when it arrives
        padded = x.contiguous()
        if rows % world.size:
            padded = x.new_zeros(largest, *x.shape[1:])
            padded[: len(x)] = x
        gathered = x.new_empty(world.size * largest, *x.shape[1:])
        dist.all_gather_single(gathered, padded)
        if rows % world.size == 0:
            return gathered
        parts = [piece(rows, rank, world.size) for rank in range(world.size)]
        return torch.cat([gathered[k * largest :][: part.stop - part.start] for k, part in enumerate(parts)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.summed:
            gradient = gradient.contiguous().clone()
            dist.all_reduce(gradient)
            return gradient[ctx.world.part(ctx.rows)], None, None, None
        # Every rank has computed the same loss, so the sum over ranks of this slice's gradient is W times the own one.
        # It is the mean over ranks, not over rows, that DistributedDataParallel takes: unequal slices do no harm.
        return gradient[ctx.world.part(ctx.rows)] * ctx.world.size, None, None, None


class _Total(torch.autograd.Function):
    """All ranks' shares, added; see `World.total`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        ctx.size = size
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.size, None
