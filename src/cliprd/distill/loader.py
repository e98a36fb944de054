"""Batches for training: shards joined with the teacher cache, in a stateless order, prefetched by threads.

The position (epoch, step) is the only state, so a resumed training sees exactly the batches of an uninterrupted one:
every sample once an epoch, on any number of ranks and workers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

import numpy as np

from cliprd.data.shards import Shard, ShardSet
from cliprd.distill.division import Division
from cliprd.distill.order import Position, epoch_order
from cliprd.distill.rows import Batch, Preparer, Row
from cliprd.errors import InputError
from cliprd.models.image_spec import ImageSpec
from cliprd.parallel import ordered_map
from cliprd.params import Params
from cliprd.teacher_cache import TeacherCache

MEMORY_BUDGET = 2**30  # bytes: a set whose bytes, crops and teacher embeddings fit is read and decoded once


class Loader:
    """Iterates over the batches of a training.

    Args:
        params: `distill` (batch_size, seed, epochs, shuffle_buffer, workers) and `augmentation`.
        spec, model_cfg: of the student.
        part: number of rows of a batch → slice of the rows to build; the others are neither decoded nor tokenised.
            None: all rows.
        memory_budget: bytes; smaller sets stay in memory over the epochs.

    Attributes:
        division: of an epoch into batches.
        steps_per_epoch: batches an epoch.
        waited: seconds that the consumer spent waiting for batches.
        resident: whether the set stays in memory.
    """

    def __init__(
        self,
        params: Params,
        shards: ShardSet,
        cache: TeacherCache,
        spec: ImageSpec,
        model_cfg: Mapping[str, Any],
        *,
        part: Callable[[int], slice] | None = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        d = params.distill
        self._shards, self._cache, self._d = shards, cache, d
        self._part = part or slice
        self.division = Division(shards.samples, d.batch_size)
        self.steps_per_epoch = self.division.steps
        crops = shards.samples * min(cache.views, d.epochs) * spec.size**2 * 3
        embeddings = shards.samples * (cache.views + 1) * cache.dim * 2
        self.resident = sum(shard.size for shard in shards.shards) + crops + embeddings <= memory_budget
        self._prepare = Preparer(
            spec, model_cfg, params.augmentation, views=cache.views, epochs=d.epochs, keep=self.resident
        )
        self._all: list[list[Row]] | None = None
        self.waited = 0.0

    def batches(self, start: Position) -> Generator[Batch, None, None]:
        """From `start` to the end of the last epoch, in order; `distill.workers` threads make them ahead."""
        with contextlib.closing(self._prepared(start)) as ahead:
            while True:
                begun = time.perf_counter()
                batch = next(ahead, None)
                self.waited += time.perf_counter() - begun
                if batch is None:
                    return
                yield batch

    def _prepared(self, start: Position) -> Generator[Batch, None, None]:
        workers, jobs = self._d.workers, self._jobs(start)
        if workers == 0:
            yield from (self._prepare.batch(*job) for job in jobs)
        else:
            yield from ordered_map(lambda job: self._prepare.batch(*job), jobs, workers=workers, ahead=2 * workers + 1)

    def _jobs(self, start: Position) -> Iterator[tuple[list[Row], int]]:
        step = start.step
        for epoch in range(start.epoch, self._d.epochs):
            rows = self._rows(epoch, self.division.span(step).start)
            for number in range(step, self.steps_per_epoch):
                size = self.division.size(number)
                yield list(islice(rows, size))[self._part(size)], epoch
            step = 0

    def _rows(self, epoch: int, skip: int) -> Iterator[Row]:
        """Rows of an epoch in order, without its first `skip`."""
        if skip >= self._shards.samples:
            return
        sizes = [shard.samples for shard in self._shards.shards]
        order = epoch_order(sizes, seed=self._d.seed, epoch=epoch, buffer=self._d.shuffle_buffer)
        if self.resident:
            if self._all is None:
                self._all = [list(self._read(shard)) for shard in self._shards.shards]
            laid = chain.from_iterable(self._all[shard] for shard in order.shards)
            for number in range(order.windows):
                window = list(islice(laid, order.window))
                yield from (
                    window[position] for position in order.within(number)[max(0, skip - number * order.window) :]
                )
            return
        first, skip = divmod(skip, order.window)
        laid_out = self._lay_out(order.shards, first * order.window)
        with ThreadPoolExecutor(
            1, thread_name_prefix="reader"
        ) as reader:  # the next window is read while one is served
            ahead = reader.submit(lambda: list(islice(laid_out, order.window)))
            for number in range(first, order.windows):
                window = ahead.result()
                if number + 1 < order.windows:
                    ahead = reader.submit(lambda: list(islice(laid_out, order.window)))
                yield from (window[position] for position in order.within(number)[skip:])
                skip = 0

    def _lay_out(self, shards: np.ndarray[Any, Any], first: int) -> Iterator[Row]:
        """Rows of the concatenated shards from position `first` on; shards before it are not read."""
        for index in shards:
            shard = self._shards.shards[index]
            if first >= shard.samples:
                first -= shard.samples
                continue
            yield from islice(self._read(shard), first, None)
            first = 0

    def _read(self, shard: Shard) -> Iterator[Row]:
        image, text, _ = self._cache.read(shard)
        count = 0
        for sample, of_image, of_text in zip(self._shards.read(shard), image, text, strict=False):
            count += 1
            yield Row(sample.key, sample.captions, sample.image, of_image, of_text)
        if count != shard.samples:
            raise InputError(
                f"{self._shards.where(shard)} gave {count} samples, its index says {shard.samples}.",
                "Delete the folder and run `cliprd prepare` again.",
            )
