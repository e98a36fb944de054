"""The demo teacher as a plug-in: the entry point `aligned` of the group `cliprd.teachers`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliprd.models.plugin import Commit, Settings, TeacherPlugin
from cliprd.params import Aligned

if TYPE_CHECKING:
    import torch

    from cliprd.data.shards import ShardSet
    from cliprd.models.encoder import Encoder


def _dim(settings: Settings) -> int:
    return Aligned.model_validate(settings).dim


def _train(
    shards: ShardSet, folder: Path, settings: Settings, device: torch.device, commit: Commit
) -> tuple[Encoder, Mapping[str, Any]]:
    from cliprd.demo_teacher import stage

    return stage.train(shards, folder, Aligned.model_validate(settings), device, commit)


def _load(folder: Path | None, settings: Settings, device: torch.device) -> Encoder:
    from cliprd.demo_teacher import aligned

    assert folder is not None  # it is trained
    return aligned.load(folder, device=device)


plugin = TeacherPlugin(load=_load, dim=_dim, train=_train)
