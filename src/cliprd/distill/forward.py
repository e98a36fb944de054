"""From a batch to the terms of the loss: the towers on this process's rows, the loss on all rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from cliprd.data.augment import to_tensor
from cliprd.distill.device import Runtime
from cliprd.distill.distributed import World
from cliprd.distill.rows import Batch
from cliprd.image_spec import ImageSpec
from cliprd.losses import DistillationLoss
from cliprd.models.packed import pooled_image_features, pooled_text_features


class Forward(nn.Module):
    """Student and loss as one module: all that trains is used in its forward pass, and so reduced over the ranks."""

    def __init__(
        self,
        model: nn.Module,
        loss: DistillationLoss,
        spec: ImageSpec,
        runtime: Runtime,
        world: World,
        teacher_scale: float,
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self._spec, self._runtime, self._world = spec, runtime, world
        self._teacher_scale = torch.tensor(teacher_scale, device=runtime.device)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms over the whole batch, the same on every rank.

        Args:
            batch: this rank's rows, on the CPU.
        """
        device, world = self._runtime.device, self._world
        with self._runtime.autocast():
            # channels last: convolutions, the patch embedding among them, are faster on it
            pixels = to_tensor(batch.images, self._spec, device).to(memory_format=torch.channels_last)
            images = pooled_image_features(self.model, pixels)
            texts = pooled_text_features(self.model, batch.tokens, device)
        teacher = [
            # float16 rounding left them a bit off
            normalize(world.gather(t.to(device, non_blocking=True)).float(), dim=1)
            for t in (batch.teacher_image, batch.teacher_text)
        ]
        terms: dict[str, Tensor] = self.loss(
            world.gather(images), world.gather(texts), scale_of(self.model).exp(), *teacher, self._teacher_scale
        )
        return terms


def scale_of(model: nn.Module) -> nn.Parameter:
    """The student's logit scale, as a logarithm."""
    scale: nn.Parameter = model.logit_scale  # type: ignore[assignment]
    return scale
