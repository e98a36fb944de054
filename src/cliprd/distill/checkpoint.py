"""Checkpoints of a training: all that the next step depends on, in safetensors and JSON, never a pickle.

`.checkpoint/step-00000100.safetensors` holds the tensors, `step-00000100.json` the rest with the tensors' sha256 and
its own digest. Each is moved into place whole, the JSON last: a checkpoint exists when its JSON does. Two are kept, so
that a damaged one costs `checkpoint_every` steps and not the training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cliprd import files
from cliprd.artifact import manifest
from cliprd.distill.history import HISTORY
from cliprd.distill.optimizer import named_parameters
from cliprd.distill.order import Position
from cliprd.errors import InputError
from cliprd.files import atomic_write
from cliprd.reading import read_json

FOLDER = ".checkpoint"
KEPT = 2
SCHEMA = 1


@dataclass(frozen=True)
class State:
    """The live objects that a checkpoint holds."""

    model: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]:
        """Model, loss parameters, optimiser moments by parameter name, RNG states; detached copies on the CPU."""
        found = {f"student.{name}": tensor for name, tensor in self.model.state_dict().items()}
        found |= {f"loss.{name}": tensor for name, tensor in self.loss.state_dict().items()}
        for name, parameter in named_parameters(self.model, self.loss).items():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                found[f"optimizer.{kind}.{name}"] = value
        found["rng.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            found["rng.cuda"] = torch.cuda.get_rng_state()
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in found.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `tensors`, in place."""
        self.model.load_state_dict(_under(tensors, "student."), strict=True)
        self.loss.load_state_dict(_under(tensors, "loss."), strict=True)
        parameters = named_parameters(self.model, self.loss)
        for key, value in _under(tensors, "optimizer.").items():
            kind, _, name = key.partition(".")
            self.optimizer.state[parameters[name]][kind] = value.to(parameters[name].device)
        torch.set_rng_state(tensors["rng.cpu"])
        if torch.cuda.is_available() and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"])


class Checkpoints:
    """The checkpoints of one output folder.

    Args:
        output: the student's folder.
        identity: digest of what makes two trainings the same. The stage's Workspace clears the folder when parameters,
            inputs or code differ; this catches whoever calls `train` directly.
        commit: called with the names of a new checkpoint's files and, before them, of those that it relies on.
    """

    def __init__(self, output: Path, identity: str = "", commit: Callable[..., None] = lambda *names: None) -> None:
        self.folder = output / FOLDER
        self._identity = identity
        self._commit = commit

    def save(self, state: State, *, step: int, position: Position) -> None:
        """Write the checkpoint of `step`, then forget all but the last two."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(step)
        data = safetensors.torch.save(state.tensors())
        with atomic_write(path) as file:
            file.write(data)
        body = {
            "schema": SCHEMA,
            "identity": self._identity,
            "step": step,
            "position": {"epoch": position.epoch, "step": position.step},
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        files.write_json(path.with_suffix(".json"), {**body, "digest": files.digest(body)})
        for old in self._steps()[KEPT:]:
            self._path(old).with_suffix(".json").unlink()  # first, so that what is left is no checkpoint
            self._path(old).unlink(missing_ok=True)
        names = (f"{FOLDER}/{path.name}", f"{FOLDER}/{path.with_suffix('.json').name}")
        self._commit(HISTORY, manifest.VOLATILE_DIR, *names)

    def load(self, state: State) -> tuple[int, Position] | None:
        """Restore the newest checkpoint into `state`; None if there is none. Returns its step and data position.

        Raises:
            InputError: it is damaged or of another training; names the file and what to do.
        """
        self._sweep()
        for step in self._steps():
            body = self._read(self._path(step).with_suffix(".json"))
            path = self._path(step)
            if not path.is_file():  # its owner followed the advice below
                continue
            data = path.read_bytes()
            if len(data) != body["size"] or hashlib.sha256(data).hexdigest() != body["sha256"]:
                raise self._damaged(path, "its content does not match its sha256")
            try:
                state.restore(safetensors.torch.load(data))
            except (safetensors.SafetensorError, RuntimeError, KeyError) as error:
                raise self._damaged(path, " ".join(str(error).split())[:200]) from error
            return step, Position(body["position"]["epoch"], body["position"]["step"])
        return None

    def last(self) -> Path | None:
        """File of the newest checkpoint."""
        steps = self._steps()
        return self._path(steps[0]) if steps else None

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def _steps(self) -> list[int]:
        """Steps of the checkpoints, newest first."""
        return sorted((int(path.stem.partition("-")[2]) for path in self.folder.glob("step-*.json")), reverse=True)

    def _sweep(self) -> None:
        """Remove what a kill in the middle of `save` has left."""
        steps = set(self._steps())
        files.sweep_below(self.folder)
        for stray in self.folder.glob("step-*.safetensors"):
            if int(stray.stem.partition("-")[2]) not in steps:
                stray.unlink()

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            body: dict[str, Any] = read_json(path)
            stored = body.pop("digest")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise self._damaged(path, repr(error)) from error
        if stored != files.digest(body):
            raise self._damaged(path, "its content does not match its digest")
        if body["schema"] != SCHEMA or body["identity"] != self._identity:
            raise InputError(
                f"{path} belongs to a training with other parameters, data or code.",
                f"Delete {self.folder}, or give another --output.",
            )
        return body

    def _damaged(self, path: Path, how: str) -> InputError:
        older = [step for step in self._steps() if step < int(path.stem.partition("-")[2])]
        then = f"step {older[0]}, the checkpoint before" if older else "its beginning"
        return InputError(f"{path} is damaged: {how}.", f"Delete this file: the training then goes on from {then}.")


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
