"""The training loop: batches of the loader through student and loss, with checkpoints, history and a watch over it all.

On one CPU the same parameters and inputs give the same weights bit for bit, killed and resumed or not. Several
processes give the same but for rounding, whatever their number (see `distributed`); a resumed training may change it.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cliprd import files, progress
from cliprd.data.shards import ShardSet
from cliprd.distill import device
from cliprd.distill.checkpoint import Checkpoints, State
from cliprd.distill.distributed import World
from cliprd.distill.divergence import FiniteCheck
from cliprd.distill.forward import Forward, at_once, scale_of
from cliprd.distill.gradient_cache import GradientCache
from cliprd.distill.history import STUDENT_SCALE, History
from cliprd.distill.loader import Loader
from cliprd.distill.objective import build_loss
from cliprd.distill.optimizer import build_optimizer, named_parameters
from cliprd.distill.order import Position
from cliprd.distill.record import Record
from cliprd.distill.rows import Batch
from cliprd.distill.schedule import learning_rate
from cliprd.distill.sections import sections
from cliprd.formatting import figure
from cliprd.losses import DistillationLoss
from cliprd.machine import gc_frozen
from cliprd.models.student import build_student, student_config, student_spec
from cliprd.params import Params
from cliprd.teacher_cache import TeacherCache

MAX_LOGIT_SCALE = math.log(100)  # of the student's own scale, as in open_clip
Report = Callable[[Record], None]


@dataclass(frozen=True)
class Trained:
    """A finished training, student and loss on the CPU."""

    model: nn.Module
    loss: DistillationLoss
    steps: int
    samples: int  # seen, counted once for each epoch


@gc_frozen()
def train(
    params: Params,
    shards: ShardSet,
    cache: TeacherCache,
    output: Path,
    report: Report | None = None,
    world: World = World(),  # noqa: B008 (frozen)
    commit: Callable[..., None] = lambda *names: None,
) -> Trained:
    """Train a student, or go on from the newest checkpoint in `output`.

    Writes `history.csv`, `volatile/throughput.csv` and `.checkpoint/`, which stays for the caller to remove once the
    student is saved; only the leader of `world` reads or writes there.

    Args:
        params: `student`, `distill` and `augmentation` are used.
        cache: opened against `shards` and `params.augmentation`.
        report: called with a record every `distill.log_every` steps and after the last; after a resume, records since
            the checkpoint come a second time. Only the leader's is.
        world: the processes that train together; all call this with the same parameters and inputs.
        commit: called with the names of files that a resumed training relies on (`Workspace.commit`).

    Raises:
        ParamsError: the set is too small (see `Division.check`), or the student or the loss cannot be built.
        InputError: a checkpoint is damaged.
        DivergedError: a term, the gradient or a scale is no finite number, or a scale ran away.
        MachineError: no such device.
    """
    job = _Job(params, shards, cache, world)
    checkpoints = Checkpoints(output, _identity(params, shards, cache), commit)
    done, position = _resume(checkpoints, job.state, world)
    if done and world.leads:
        print(f"cliprd: the training {job.name} goes on from step {done} of {job.total}", file=sys.stderr)
    world.seed(params.distill.seed, done)
    job.connect(cache, world)
    history = History(output, job.terms, job.scales, keep_to=done) if world.leads else None
    bar = progress.bar(total=job.total, initial=done, desc=f"distill {job.name}", unit="step", disable=not world.leads)
    pace = _Pace(job.loader)
    batches = job.loader.batches(position)
    try:
        for batch in batches:
            step = done + 1
            epoch, within = divmod(done, job.loader.steps_per_epoch)
            pace.step(job.step(batch, step, within))
            saves, logs, checks = job.due(step)
            if checks:
                values = job.guard.check(checkpoints.last())
            if logs and history is not None:
                record = job.record(step, epoch, values, pace.since_last())
                history.append(record)
                bar.set_postfix_str(describe(record), refresh=False)
                if report is not None:
                    report(record)
            if saves and history is not None:
                history.sync()
                last = within + 1 == job.loader.steps_per_epoch
                after = Position(epoch + 1, 0) if last else Position(epoch, within + 1)
                checkpoints.save(job.state, step=step, position=after)
            done = step
            bar.update()
    finally:
        batches.close()
        if history is not None:
            history.close()
        bar.close()
    return Trained(job.model.cpu().eval(), job.loss.cpu().eval(), job.total, params.distill.epochs * shards.samples)


class _Job:
    """All that trains, and what one step of it does.

    Attributes:
        total: steps of the whole training.
        terms, scales: names of what is recorded.
    """

    def __init__(self, params: Params, shards: ShardSet, cache: TeacherCache, world: World) -> None:
        d = self._d = params.distill
        self.name = f"{d.method}-{d.seed}"
        self.runtime = device.resolve(d)
        torch.manual_seed(d.seed)
        fresh = build_student(params.student, seed=d.seed).to(self.runtime.device)
        self.model = world.synchronise_norms(fresh, self.runtime.device)
        model_cfg = student_config(params.student)
        self.loss = build_loss(d, int(model_cfg["embed_dim"]), cache.dim).to(self.runtime.device)
        self._parameters = named_parameters(self.model, self.loss)
        self._optimizer = build_optimizer(self._parameters.values(), d)
        self._spec = student_spec(self.model, params.student)
        self.loader = Loader(params, shards, cache, self._spec, model_cfg, part=world.part)
        self.loader.division.check(world.size)
        self.total = d.epochs * self.loader.steps_per_epoch
        self.state = State(self.model, self.loss, self._optimizer)
        self.terms = self.loss.term_names
        self.scales = [STUDENT_SCALE, *self.loss.multipliers()]

    def connect(self, cache: TeacherCache, world: World) -> None:
        """Wrap what trains for `world`, once its state is that of the checkpoint."""
        d = self._d
        forward = Forward(self.model, self.loss, self._spec, self.runtime, world, cache.logit_scale, local=d.local_loss)
        micro = d.micro_batch_size
        self._backward = at_once(world.wrap(forward)) if micro is None else GradientCache(forward, world, micro)
        max_scale = d.max_scale if self.loss.scale_mode == "raw" else None
        self.guard = FiniteCheck([*self.terms, *self.scales, "grad_norm"], max_scale=max_scale, agree=world.agree)

    def due(self, step: int) -> tuple[bool, bool, bool]:
        """Whether a checkpoint, a record, and a check of the numbers come after a step."""
        d, last = self._d, step == self.total
        saves, logs = step % d.checkpoint_every == 0 or last, step % d.log_every == 0 or last
        # A check makes a GPU wait for its own results.
        return saves, logs, saves or logs or self.runtime.device.type == "cpu"

    def step(self, batch: Batch, step: int, within: int) -> int:
        """One optimiser step, counted from 1; its numbers go to the guard. Returns the rows of the whole batch.

        Args:
            within: number of the batch in its epoch, of which `batch` is this rank's part.
        """
        d, rows = self._d, self.loader.division.size(within)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step - 1, base=d.lr, warmup=d.warmup_steps, total=self.total)
        self._optimizer.zero_grad(set_to_none=True)
        values = self._backward(batch.pin() if self.runtime.device.type == "cuda" else batch, rows)
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if d.clip_grad_norm is not None:  # no gradient scaler anywhere: these are the true gradients
            torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), d.clip_grad_norm, norm)
        self._optimizer.step()
        with torch.no_grad():
            scale_of(self.model).clamp_(0, MAX_LOGIT_SCALE)
        self.loss.clamp_scales()
        multipliers = {STUDENT_SCALE: scale_of(self.model).exp(), **self.loss.multipliers()}
        self.guard.add(step, [*(values[t] for t in self.terms), *(multipliers[s] for s in self.scales), norm])
        return rows

    def record(self, step: int, epoch: int, values: Mapping[str, float], pace: Mapping[str, float]) -> Record:
        """What is logged of a step, from the numbers that the guard has checked."""
        return Record(
            step=step,
            epoch=epoch,
            lr=self._optimizer.param_groups[0]["lr"],
            terms={name: values[name] for name in self.terms},
            scales={name: values[name] for name in self.scales},
            grad_norm=values["grad_norm"],
            **pace,
            time=int(1000 * time.time()),
        )


class _Pace:
    """Images per second and share of waiting, from one record to the next."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._begun, self._waited, self._images = time.perf_counter(), 0.0, 0

    def step(self, images: int) -> None:
        self._images += images

    def since_last(self) -> dict[str, float]:
        now, waited = time.perf_counter(), self._loader.waited
        seconds = max(now - self._begun, 1e-9)
        pace = {
            "images_per_second": self._images / seconds,
            "data_wait": min(1.0, (waited - self._waited) / seconds),
        }
        self._begun, self._waited, self._images = now, waited, 0
        return pace


def describe(record: Record) -> str:
    """A record on one line, for the progress bar."""
    terms = " ".join(f"{name} {figure(value, 3)}" for name, value in record.terms.items())
    scales = " ".join(f"{name.removesuffix('_scale')}× {figure(value, 3)}" for name, value in record.scales.items())
    return (
        f"loss {figure(sum(record.terms.values()))} ({terms}) {scales} |g| {figure(record.grad_norm, 2)} "
        f"{record.images_per_second:.0f} img/s wait {record.data_wait:.0%}"
    )


def _resume(checkpoints: Checkpoints, state: State, world: World) -> tuple[int, Position]:
    """Step and data position to go on from, `state` restored to them on all ranks; the leader alone reads files."""
    found = checkpoints.load(state) if world.leads else None
    sent = (found, state.tensors()) if found and world.size > 1 else None
    if (received := world.share(sent)) is not None:
        found, tensors = received
        if not world.leads:
            state.restore(tensors)
    return found or (0, Position(0, 0))


def _identity(params: Params, shards: ShardSet, cache: TeacherCache) -> str:
    """What a checkpoint must agree with."""
    return files.digest({**sections(params), "shards": shards.fingerprint, "cache": cache.fingerprint})
