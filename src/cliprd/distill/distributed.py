"""Data-parallel training: several processes train one student, each on its slice of every batch.

A rank embeds its slice; all embeddings are gathered in the order of the batch; every rank computes the loss L of the
full batch. With W ranks, a rank's gradient of the loss's own parameters and of the logit scale is ∂L/∂p, the same on
all ranks, while that of a tower covers its own slice only. `gather` multiplies the latter by W in the backward pass, so
that DistributedDataParallel's mean over ranks is exactly ∂L/∂θ: up to rounding, the training is the same on any number
of processes. Every rank repeats the N×N part, which is small compared with the towers.

Ranks and addresses come from torchrun's environment variables; without them there is one process.
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
from cliprd.errors import MachineError, ParamsError, RetryableError

# Longer than the leader's longest work between two collectives, a checkpoint or the student's export. Dead ranks are
# noticed at once by their closed connections, hanging ones by `heartbeat`.
TIMEOUT = timedelta(minutes=10)
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")

T = TypeVar("T")


class LostContactError(RetryableError):
    """The other ranks are gone: a consequence of a failure elsewhere, never the cause."""


@dataclass(frozen=True)
class World:
    """The group of processes and this one's rank; for a single process, all methods return their input.

    Attributes:
        rank: 0 to size - 1; rank 0, the leader, owns the output folder, logs and reports.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the leader, which writes outputs and logs."""
        return self.rank == 0

    def part(self, rows: int) -> slice:
        """This rank's rows of a batch of `rows`; concatenated in order of rank, the parts are the batch."""
        return piece(rows, self.rank, self.size)

    def gather(self, x: Tensor, rows: int, *, summed: bool = False) -> Tensor:
        """Slices `part(rows)` of all ranks, `[about rows / W, D]`, as `[rows, D]`.

        Every rank must compute the same loss from the result; this rank's slice gets its rows of the gradient, times W
        (see above).

        Args:
            summed: each rank computes only a share of the loss (see `total`): the slice gets the gradient summed over
                ranks.
        """
        if self.size == 1:
            return x
        gathered: Tensor = _Gather.apply(x, rows, self, summed)  # type: ignore[no-untyped-call]
        return gathered

    def total(self, x: Tensor) -> Tensor:
        """Sum over ranks of their shares of a loss; all ranks must call backward from it.

        Each share gets W times the gradient, so that after `gather(..., summed=True)` and the mean over ranks all
        parameters have the gradient of the sum.
        """
        if self.size == 1:
            return x
        summed: Tensor = _Total.apply(x, self.size)  # type: ignore[no-untyped-call]
        return summed

    def share(self, value: T | None) -> T:
        """The leader's `value` on every rank, pickled between our own processes; the others' values are ignored."""
        box: list[Any] = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        shared: T = box[0]
        return shared

    def agree(self, numbers: Tensor) -> Tensor:
        """Broadcast the leader's numbers in place: ranks decide alike even if GPUs differ in the last digit."""
        if self.size > 1:
            dist.broadcast(numbers, src=0)
        return numbers

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` in DistributedDataParallel: gradients become the mean over ranks.

        Parameters and buffers start as the leader's; buffers are not sent again, since every rank computes the same.
        `static_graph`, because some losses leave a parameter unused (the logit scale if neither task nor hrd has a
        weight): it is detected once instead of in every step.
        """
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(
            module, forward_sync_buffers=False, static_graph=True, gradient_as_bucket_view=True
        )

    def start_alike(self, module: nn.Module) -> None:
        """Broadcast the leader's parameters and buffers, for a module that is not wrapped."""
        if self.size > 1:
            with torch.no_grad():
                for tensor in [*module.parameters(), *module.buffers()]:
                    dist.broadcast(tensor, src=0)

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Average gradients over ranks, in place, for a module that is not wrapped."""
        if self.size == 1:
            return
        for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
            work.wait()
        for gradient in gradients:
            gradient /= self.size

    def synchronise_norms(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model` with batch norms synchronised over ranks; parameters and their names stay.

        Raises:
            ParamsError: it has batch norms and the device is a CPU, where torch cannot synchronise them.
        """
        if self.size == 1 or not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            return model
        if device.type == "cpu":
            raise ParamsError(
                f"The student has batch norms, whose statistics cannot be shared by {self.size} processes on a CPU.",
                "Set distill.processes to 1, train on GPUs, or take a student without batch norms (a ViT).",
            )
        from timm.layers import convert_sync_batchnorm  # torch's converter would drop the activations of timm's layers

        converted: nn.Module = convert_sync_batchnorm(model)
        return converted

    def seed(self, seed: int, step: int) -> None:
        """Seed the followers differently from the leader, so that dropout masks differ. A training depends
        on the number of processes only with dropout."""
        if not self.leads:
            torch.manual_seed(((seed * 1_000_003 + step) * 65_536 + self.rank) % 2**63)


def launched() -> bool:
    """Whether torchrun, or a launcher that sets its variables, started this process."""
    return "WORLD_SIZE" in os.environ


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Join the process group that the environment describes; NCCL between GPUs, gloo between CPUs.

    Raises:
        MachineError: there is no GPU for this process.
        LostContactError: another rank died or hangs; that rank reports the cause.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size == 1:
        yield World()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise MachineError(
                f"Process {local} of this machine has no GPU: torch sees {torch.cuda.device_count()}.",
                "Give torchrun --nproc-per-node as many as there are.",
            )
        torch.cuda.set_device(local)
    elif "OMP_NUM_THREADS" not in os.environ:  # else torch uses all cores in each process
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        torch.set_num_threads(max(1, torch.get_num_threads() // local_size))
    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=TIMEOUT))
        # gloo as well, for objects
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
            "Run the same command to resume from the last checkpoint.",
        ) from error
    dist.destroy_process_group()  # not after a failure, when it could block on ranks that are gone


def _silent(rank: int, size: int, other: int) -> RetryableError:
    """No LostContactError: this rank knows the cause, although the launcher will see `other` killed."""
    return RetryableError(
        f"Rank {rank} of {size} lost contact with rank {other}: no heartbeat for {EVERY * MISSED:.0f} seconds.",
        "Run the same command to resume from the last checkpoint.",
    )


def _is_loss(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in _LOST)


class _Gather(torch.autograd.Function):
    """All ranks' slices, concatenated; see `World.gather`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int, world: World, summed: bool) -> Tensor:
        ctx.rows, ctx.world, ctx.summed = rows, world, summed
        largest = -(-rows // world.size)  # all_gather needs equal sizes: shorter slices are padded, and cut afterwards
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
        # Every rank computed the same loss, so the sum over ranks of this slice's gradient is W times its own.
        # DistributedDataParallel averages over ranks, not rows, so slices may differ in size.
        return gradient[ctx.world.part(ctx.rows)] * ctx.world.size, None, None, None


class _Total(torch.autograd.Function):
    """All ranks' shares, summed; see `World.total`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        ctx.size = size
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.size, None
