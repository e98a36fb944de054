"""Trains with worlds of several ranks, forked from one process so that libraries load once; `test_distributed` looks at
what they leave.

Usage: python -m tests.distill.ranks ROOMS OUTPUT
"""

import os
import sys
from pathlib import Path

import torch

from cliprd.data.augment import to_tensor
from cliprd.distill import device, distributed, forward
from cliprd.distill.forward import Forward, at_once
from cliprd.distill.gradient_cache import GradientCache
from cliprd.distill.loader import Loader
from cliprd.distill.objective import build_loss
from cliprd.distill.optimizer import build_optimizer, named_parameters
from cliprd.distill.order import Position
from cliprd.distill.train import train
from cliprd.models.student import build_student, student_config, student_spec
from tests.distill.rooms import make_params, open_rooms
from tests.ports import free_port

BATCH = 11  # 48 samples: batches of 9 and 10, uneven parts
STOP, SAVE = 8, 6  # a step between two checkpoints, and their distance: in the middle of an epoch
CASES = {
    "clip_rd": {"method": "clip_rd-raw"},
    "chunked": {"method": "clip_rd-exp", "chunk_size": 5},
    "projected_task": {"method": "clip_rd-exp", "project_task": True},
    "micro": {"method": "clip_rd-raw", "micro_batch_size": 2},
    "local": {"method": "clip_rd-raw", "local_loss": True},
    "local_chunked": {"method": "clip_rd-exp", "local_loss": True, "chunk_size": 1},
    "local_projected": {"method": "clip_rd-exp", "local_loss": True, "project_task": True},
    "local_micro": {"method": "clip_rd-raw", "local_loss": True, "micro_batch_size": 2},
    "unused_scale": {"method": "clip_kd", "weights": {"task": 0, "hrd": 0}},
}


class Stop(Exception):
    pass


def in_world(size, call):
    """`call(world)` in `size` forked ranks; their exit codes, 0 for a call that came back and 9 for one that raised."""
    port = free_port()
    children = []
    for rank in range(size):
        if pid := os.fork():
            children.append(pid)
            continue
        code = 9
        try:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            with distributed.join(torch.device("cpu")) as world:
                call(world)
            code = 0
        except distributed.LostContactError:
            code = 75
        except Stop:
            code = 8
        finally:
            os._exit(code)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def two_steps(world, rooms, output, case):
    """Two steps in float64, from a start that is wrong on all ranks but the first; terms, gradients and weights."""
    params = make_params(rooms, batch_size=BATCH, **CASES[case])
    shards, cache = open_rooms(rooms, params)
    model = build_student(params.student, seed=0).double()
    loss = build_loss(params.distill, 16, cache.dim).double()
    parameters = named_parameters(model, loss)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += world.rank
    optimizer = build_optimizer(parameters.values(), params.distill)
    spec = student_spec(model, params.student)
    loader = Loader(params, shards, cache, spec, student_config(params.student), part=world.part)
    runtime, local = device.resolve(params.distill), params.distill.local_loss
    whole = Forward(model, loss, spec, runtime, world, cache.logit_scale, local=local)
    micro = params.distill.micro_batch_size
    backward = GradientCache(whole, world, micro) if micro else at_once(world.wrap(whole))
    batches = loader.batches(Position(0, 0))
    found = {}
    for step in range(2):
        batch = next(batches)
        rows = loader.division.size(step)
        assert len(batch.images) == len(range(rows)[world.part(rows)])
        optimizer.zero_grad()
        terms = backward(batch, rows)
        found |= {f"{step}.term.{name}": value.detach() for name, value in terms.items()}
        found |= {f"{step}.gradient.{name}": p.grad.clone() for name, p in parameters.items() if p.grad is not None}
        optimizer.step()
    found |= {f"weight.{name}": p.detach().clone() for name, p in parameters.items()}
    torch.save(found, output / f"{case}-{world.size}-{world.rank}.pt")


def training(world, rooms, output, stop=None):
    def report(record):
        if record.step == stop:
            raise Stop

    params = make_params(rooms, processes=world.size, checkpoint_every=SAVE)
    trained = train(params, *open_rooms(rooms, params), output, report, world)
    assert trained.steps == 15


def main(rooms: Path, output: Path) -> None:
    torch.set_num_threads(1)
    forward.to_tensor = lambda *arguments: to_tensor(*arguments).double()
    for size in (1, 2, 4):
        for case in CASES:
            assert in_world(size, lambda world, case=case: two_steps(world, rooms, output, case)) == [0] * size
    forward.to_tensor = to_tensor
    # The leader stops; the other has lost it. Then one process goes on (in the test), and two where one has stopped.
    assert in_world(2, lambda world: training(world, rooms, output / "from-two", stop=STOP)) == [8, 75]
    assert in_world(1, lambda world: training(world, rooms, output / "from-one", stop=STOP)) == [8]
    assert in_world(2, lambda world: training(world, rooms, output / "from-one")) == [0, 0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
