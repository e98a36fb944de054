"""Forward and backward pass of a batch: the towers on this process's rows, the loss on all rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from cliprd.data.augment import to_tensor
from cliprd.distill.device import Runtime
from cliprd.distill.distributed import World
from cliprd.distill.rows import Batch
from cliprd.losses import DistillationLoss
from cliprd.models.image_spec import ImageSpec
from cliprd.models.packed import pooled_image_features, pooled_text_features

Backward = Callable[[Batch, int], dict[str, Tensor]]  # (this rank's rows, number of rows of the full batch) → terms


class Forward(nn.Module):
    """Student and loss as one module, whose forward pass uses all trainable parameters, as DDP needs.

    Args:
        local: each rank computes only its own rows and columns of the similarity matrices.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: DistillationLoss,
        spec: ImageSpec,
        runtime: Runtime,
        world: World,
        teacher_scale: float,
        *,
        local: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self._spec, self._runtime, self._world = spec, runtime, world
        self._local = local and world.size > 1
        self._teacher_scale = torch.tensor(teacher_scale, device=runtime.device)

    def forward(self, batch: Batch, rows: int) -> dict[str, Tensor]:
        """Weighted terms over the full batch, the same on every rank.

        Args:
            batch: this rank's rows, on the CPU.
            rows: number of rows of the full batch.
        """
        return self.terms(*self.embed(batch.images, batch.tokens), batch, rows)

    def embed(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings `[n, dim]` of n rows' images and texts (both as in `Batch`), neither projected nor normalised."""
        device = self._runtime.device
        with self._runtime.autocast():
            pixels = to_tensor(images, self._spec, device)
            return (
                pooled_image_features(self.model, pixels),
                pooled_text_features(self.model, tokens, device),
            )

    def terms(self, images: Tensor, texts: Tensor, batch: Batch, rows: int) -> dict[str, Tensor]:
        """`forward` from this rank's embeddings; of `batch` only the teacher's embeddings are used."""
        device, world = self._runtime.device, self._world
        teacher = [
            # float16 rounding changed their norms
            normalize(world.gather(t.to(device, non_blocking=True), rows).float(), dim=1)
            for t in (batch.teacher_image, batch.teacher_text)
        ]
        terms: dict[str, Tensor] = self.loss(
            world.gather(images, rows, summed=self._local),
            world.gather(texts, rows, summed=self._local),
            scale_of(self.model).exp(),
            *teacher,
            self._teacher_scale,
            rows=world.part(rows) if self._local else None,
        )
        if self._local:
            terms = dict(zip(terms, world.total(torch.stack(list(terms.values()))), strict=True))
        return terms


def objective(terms: Mapping[str, Tensor]) -> Tensor:
    """The objective: the sum of the weighted terms."""
    return torch.stack(list(terms.values())).sum()


def at_once(module: nn.Module) -> Backward:
    """A function that runs `module`, a Forward that may be wrapped, forward and backward."""

    def backward(batch: Batch, rows: int) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = module(batch, rows)
        objective(terms).backward()  # type: ignore[no-untyped-call]
        return terms

    return backward


def scale_of(model: nn.Module) -> nn.Parameter:
    """The student's logit scale, as a logarithm."""
    scale: nn.Parameter = model.logit_scale  # type: ignore[assignment]
    return scale
