"""Several machines that train together, as Kubeflow's operators tell each of them.

A Trainer's `TrainJob` and a Training Operator's `PyTorchJob` both name the first machine, their number and this one's
place among them in the variables that torchrun reads: PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT. The
same four, set by hand, make any machines that can reach each other train together.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

from cliprd.errors import EnvironmentError_, RetryableError

MEET = 600  # seconds that a machine waits for the others: theirs may still be pulling the image
VARIABLES = ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")
_CHILD = "TORCHELASTIC_RUN_ID"  # torchrun sets it in what it starts


@dataclass(frozen=True)
class Nodes:
    """This machine among those that train together.

    Attributes:
        count: how many they are.
        rank: 0 to count - 1; 0 keeps the store through which they meet. Ranks of processes are dealt out anew at each
            meeting: the leader (`World.leads`) may be on any machine.
        host, port: of machine 0, as all of them reach it.
    """

    count: int
    rank: int
    host: str
    port: int

    def address(self) -> str:
        """This machine's address as the others see it: that of the interface which leads to the first one.

        Raises:
            RetryableError: the first machine's name stays unknown; it has one once it has started.
        """
        until = time.monotonic() + MEET
        while True:
            try:
                family, _, _, _, place = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
                with socket.socket(family, socket.SOCK_DGRAM) as probe:
                    probe.connect(place)  # sends nothing
                    return str(probe.getsockname()[0])
            except OSError as error:
                if time.monotonic() > until:
                    raise RetryableError(
                        f"Machine 0 of {self.count}, {self.host}, has not been found in {MEET} s: {error}.",
                        "Look whether it has started.",
                    ) from error
                time.sleep(1)


def among() -> Nodes | None:
    """What the environment says; None on a machine of its own, and in the processes that torchrun has started.

    Raises:
        EnvironmentError_: it says a part only, or a number that may change: a batch is divided once.
    """
    if _CHILD in os.environ or VARIABLES[0] not in os.environ:
        return None
    try:
        count, rank, host, port = (os.environ[name] for name in VARIABLES)
        return Nodes(int(count), int(rank), host, int(port))
    except (KeyError, ValueError) as error:
        found = ", ".join(f"{name}={os.environ.get(name, '')}" for name in VARIABLES)
        raise EnvironmentError_(
            f"The environment names other machines, but not as it should: {found}.",
            "Set all four, the number of machines to a fixed one; or none of them.",
        ) from error
