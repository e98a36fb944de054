"""Gradients of a batch of any size in the memory of a micro-batch (GradCache, arXiv 2101.06983).

The loss depends on the towers only through the embeddings e: a tower's gradient is the sum over rows of
∂L/∂e · ∂e/∂θ, which can be computed in parts. A step embeds all rows without a graph, differentiates the loss of the
full batch with respect to the embeddings (and its own parameters), then embeds each micro-batch again with a graph and
propagates its rows of ∂L/∂e. This is exact and costs one more forward pass of the towers. Pixels (as bytes), embeddings
and the loss (see `chunk_size`) still grow with the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cliprd.distill.distributed import World
from cliprd.distill.forward import Forward, objective
from cliprd.distill.rows import Batch
from cliprd.errors import ParamsError


class GradientCache:
    """`forward.at_once` in micro-batches: a call leaves the gradients in the parameters.

    It does not use DistributedDataParallel, which expects one backward pass a step: parameters are broadcast at the
    start, and gradients are averaged once, after the last micro-batch.

    Args:
        forward: not wrapped; only its weights may change between calls.
        micro_batch_size: rows that this process embeds at a time with a graph.

    Raises:
        ParamsError: the student has batch norms in training.
    """

    def __init__(self, forward: Forward, world: World, micro_batch_size: int) -> None:
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in forward.model.modules()):
            raise ParamsError(
                "The student has batch norms: they would see the statistics of each micro-batch, not the batch's, and "
                f"the gradients with distill.micro_batch_size = {micro_batch_size} would not be those of the batch.",
                "Set distill.micro_batch_size to null, or take a student without batch norms (a ViT).",
            )
        self._forward, self._world, self._size = forward, world, micro_batch_size
        self._parameters = [p for p in forward.parameters() if p.requires_grad]
        world.start_alike(forward)

    def __call__(self, batch: Batch, rows: int) -> dict[str, Tensor]:
        """Weighted terms over the full batch of `rows`; `batch` has this rank's rows."""
        images, tokens = torch.split(batch.images, self._size), torch.split(batch.tokens, self._size)
        states, embedded = [], []
        with torch.no_grad():
            for part in zip(images, tokens, strict=True):
                states.append(_random_state())
                embedded.append(self._forward.embed(*part))
        image, text = (torch.cat(of_tower).requires_grad_() for of_tower in zip(*embedded, strict=True))
        terms = self._forward.terms(image, text, batch, rows)
        objective(terms).backward()  # type: ignore[no-untyped-call]
        for number, part in enumerate(zip(images, tokens, strict=True)):
            _set_random_state(states[number])  # repeat the dropout masks; the last one restores the final state
            span = slice(number * self._size, (number + 1) * self._size)
            towers = zip(self._forward.embed(*part), (image.grad, text.grad), strict=True)
            used = [(embedding, gradient[span]) for embedding, gradient in towers if gradient is not None]
            torch.autograd.backward([e for e, _ in used], [g for _, g in used])
        self._world.average([p.grad for p in self._parameters if p.grad is not None])
        return terms


def _random_state() -> tuple[Tensor, Tensor | None]:
    """Random state of the CPU and of the current GPU, if one is in use."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    cpu, cuda = state
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda)
