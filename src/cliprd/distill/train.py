"""The training loop: batches of the loader through student and loss, with checkpoints, history and a watch over it all.

On one CPU the same parameters and inputs give the same weights bit for bit, killed and resumed or not. Several
processes give the same but for rounding, whatever their number (see `distributed`); a resumed training may change it.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cliprd import files, progress
from cliprd.data.shards import ShardSet
from cliprd.distill import device
from cliprd.distill.checkpoint import Checkpoints, State
from cliprd.distill.distributed import World
from cliprd.distill.divergence import Guard
from cliprd.distill.forward import Forward, at_once, scale_of
from cliprd.distill.gradient_cache import GradientCache
from cliprd.distill.history import History
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
from cliprd.machine import collector_spared
from cliprd.models.student import build_student, student_config, student_spec
from cliprd.params import Params
from cliprd.teacher_cache import TeacherCache

MAX_LOGIT_SCALE = math.log(100)  # of the student's own scale, as in open_clip
STUDENT_SCALE = "student_scale"
Report = Callable[[Record], None]


@dataclass(frozen=True)
class Trained:
    """A finished training, student and loss on the CPU."""

    model: nn.Module
    loss: DistillationLoss
    steps: int
    samples: int  # seen, counted once for each epoch


@collector_spared()
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
        EnvironmentError_: no such device.
    """
    d = params.distill
    runtime = device.resolve(d)
    torch.manual_seed(d.seed)
    model = world.synchronise_norms(build_student(params.student, seed=d.seed).to(runtime.device), runtime.device)
    model_cfg = student_config(params.student)
    loss = build_loss(d, int(model_cfg["embed_dim"]), cache.dim).to(runtime.device)
    parameters = named_parameters(model, loss)
    optimizer = build_optimizer(parameters.values(), d)
    spec = student_spec(model, params.student)
    loader = Loader(params, shards, cache, spec, model_cfg, part=world.part)
    division = loader.division
    division.check(world.size)
    total = d.epochs * loader.steps_per_epoch

    state = State(model, loss, optimizer)
    checkpoints = Checkpoints(output, _identity(params, shards, cache), commit)
    done, position = _resume(checkpoints, state, world)
    if done and world.leads:
        print(f"cliprd: the training {d.method}-{d.seed} goes on from step {done} of {total}", file=sys.stderr)
    world.seed(d.seed, done)
    forward = Forward(model, loss, spec, runtime, world, cache.logit_scale, local=d.local_loss)
    micro = d.micro_batch_size
    backward = at_once(world.wrap(forward)) if micro is None else GradientCache(forward, world, micro)
    terms = loss.term_names
    scales = [STUDENT_SCALE, *loss.multipliers()]
    max_scale = d.max_scale if loss.scale_mode == "raw" else None
    guard = Guard([*terms, *scales, "grad_norm"], max_scale=max_scale, agree=world.agree)
    check_every = 1 if runtime.device.type == "cpu" else d.log_every  # a check makes a GPU wait for its own results
    history = History(output, terms, scales, keep_to=done) if world.leads else None
    bar = progress.bar(
        total=total, initial=done, desc=f"distill {d.method}-{d.seed}", unit="step", disable=not world.leads
    )
    pace = _Pace(loader)

    def step_of(batch: Batch, rows: int, step: int) -> None:
        """One optimiser step, counted from 1, on a batch of `rows`; its numbers go to the guard."""
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step - 1, base=d.lr, warmup=d.warmup_steps, total=total)
        optimizer.zero_grad(set_to_none=True)
        found = backward(batch, rows)
        gradients = [p.grad for p in parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if d.clip_grad_norm is not None:  # no gradient scaler anywhere: these are the true gradients
            torch.nn.utils.clip_grads_with_norm_(parameters.values(), d.clip_grad_norm, norm)
        optimizer.step()
        with torch.no_grad():
            scale_of(model).clamp_(0, MAX_LOGIT_SCALE)
        loss.clamp_scales()
        multipliers = {STUDENT_SCALE: scale_of(model).exp(), **loss.multipliers()}
        guard.add(step, [*(found[t] for t in terms), *(multipliers[s] for s in scales), norm])

    batches = loader.batches(position)
    try:
        for batch in batches:
            step = done + 1
            epoch, within = divmod(done, loader.steps_per_epoch)
            rows = division.size(within)
            step_of(batch.pin() if runtime.device.type == "cuda" else batch, rows, step)
            pace.step(rows)
            saves = step % d.checkpoint_every == 0 or step == total
            logs = step % d.log_every == 0 or step == total
            if saves or logs or step % check_every == 0:
                values = guard.check(checkpoints.last())
            if logs and history is not None:
                record = Record(
                    step=step,
                    epoch=epoch,
                    lr=optimizer.param_groups[0]["lr"],
                    terms={name: values[name] for name in terms},
                    scales={name: values[name] for name in scales},
                    grad_norm=values["grad_norm"],
                    **pace.since_last(),
                )
                history.append(record)
                bar.set_postfix_str(describe(record), refresh=False)
                if report is not None:
                    report(record)
            if saves and history is not None:
                history.sync()
                after = Position(epoch, within + 1) if within + 1 < loader.steps_per_epoch else Position(epoch + 1, 0)
                checkpoints.save(state, step=step, position=after)
            done = step
            bar.update()
    finally:
        batches.close()
        if history is not None:
            history.close()
        bar.close()
    return Trained(model.cpu().eval(), loss.cpu().eval(), total, d.epochs * shards.samples)


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
