"""Multi-node training as configured by Kubeflow's operators through environment variables.

`TrainJob` (Trainer) and `PyTorchJob` (Training Operator) set the number of machines, this machine's rank and the first
machine's address in torchrun's variables PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT. Set by hand,
they let any machines that can reach each other train together.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

from cliprd.errors import MachineError, RetryableError

MEET = 600  # seconds that a machine waits for the others, which may still be pulling the image
VARIABLES = ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")
_CHILD = "TORCHELASTIC_RUN_ID"  # set by torchrun in its child processes


@dataclass(frozen=True)
class Nodes:
    """This machine's role in a multi-node training.

    Attributes:
        count: number of machines.
        rank: 0 to count - 1; machine 0 hosts the rendezvous store. Ranks of processes are assigned at each rendezvous,
            so the leader (`World.leads`) may be on any machine.
        host, port: of machine 0, reachable from all machines.
    """

    count: int
    rank: int
    host: str
    port: int

    def address(self) -> str:
        """This machine's address for the others: that of the network interface with the route to machine 0.

        Raises:
            RetryableError: the name of machine 0 could not be resolved in time; it resolves once the machine started.
        """
        deadline = time.monotonic() + MEET
        while True:
            try:
                family, _, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
                with socket.socket(family, socket.SOCK_DGRAM) as probe:
                    probe.connect(address)  # sends nothing
                    return str(probe.getsockname()[0])
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RetryableError(
                        f"Machine 0 of {self.count}, {self.host}, could not be resolved in {MEET} s: {error}.",
                        "Check whether it has started.",
                    ) from error
                time.sleep(1)


def among() -> Nodes | None:
    """The configuration in the environment; None for a single machine, and in processes that torchrun started.

    Raises:
        MachineError: a variable is missing, or the number of machines is not fixed.
    """
    if _CHILD in os.environ or VARIABLES[0] not in os.environ:
        return None
    try:
        count, rank, host, port = (os.environ[name] for name in VARIABLES)
        return Nodes(int(count), int(rank), host, int(port))
    except (KeyError, ValueError) as error:
        values = ", ".join(f"{name}={os.environ.get(name, '')}" for name in VARIABLES)
        raise MachineError(
            f"The variables of a multi-node training are incomplete or invalid: {values}.",
            "Set all four, with a fixed number of machines, or none.",
        ) from error
