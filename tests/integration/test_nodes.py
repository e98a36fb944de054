"""Two containers of the real image on a Docker network of their own, as a `TrainJob` would have them as pods.

Docker stands in for the cluster: the command, user, read-only root and capabilities are the manifest's, the variables
those that the Trainer sets, and a container that ends with an error is started again. One is killed in the middle.
"""

import os
import time
import uuid
from pathlib import Path

import pytest

import docker
from cliprd import params
from cliprd.artifact import manifest
from cliprd.kubeflow.trainjob.spec import job_objects
from cliprd.stages import distill
from tests import docker_engine
from tests.distill import rooms
from tests.distill.test_distributed import assert_near, history

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
DATA = "/data"
LONG = 400  # seconds


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A shared volume that containers write as the user they run as."""
    folder = tmp_path_factory.mktemp("volume")
    rooms.build(folder)
    if os.getuid() == 0:
        os.chown(folder, 10001, 10001)
    return folder


@pytest.fixture
def network():
    made = docker.from_env().networks.create(f"cliprd-nodes-{uuid.uuid4().hex[:8]}", internal=True)
    yield made
    made.remove()


def settings(data: Path, crops: int):
    tree = rooms.make_params(data, epochs=120).model_dump(mode="json")
    tree["kubernetes"] = {"volumes": [{"claim": "pairs", "path": DATA}]}
    tree["augmentation"]["seed"] = crops
    return params.validate(tree, where="test")


def pods(image, network, data, output, crops=3):
    """The manifest's pod, once a node."""
    folders = {name: Path(DATA) / name for name in ("shards", "cache")}
    *_, runtime, _ = job_objects(
        settings(data, crops), image, nodes=2, output=Path(DATA) / output, form="trainjob", **folders
    )
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    security = container["securityContext"]
    first = f"first-{uuid.uuid4().hex[:8]}"
    return [
        docker.from_env().containers.create(
            image,
            container["command"],
            name=first if rank == 0 else f"second-{first}",
            network=network.name,
            user=str(os.getuid() or pod["securityContext"]["runAsUser"]),
            read_only=security["readOnlyRootFilesystem"],
            cap_drop=security["capabilities"]["drop"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": ""},
            shm_size="256m",
            volumes={str(data): {"bind": DATA, "mode": "rw"}},
            restart_policy={"Name": "on-failure", "MaximumRetryCount": 4},
            environment={
                "OMP_NUM_THREADS": "1",
                "PET_NNODES": "2",
                "PET_NODE_RANK": str(rank),
                "PET_NPROC_PER_NODE": "auto",
                "PET_MASTER_ADDR": first,
                "PET_MASTER_PORT": "29500",
            },
        )
        for rank in (0, 1)
    ]


def until(what, containers):
    end = time.monotonic() + LONG
    while not (found := what()):
        assert time.monotonic() < end, [container.logs()[-3000:].decode() for container in containers]
        time.sleep(0.1)
    return found


def ended(containers):
    for container in containers:
        container.reload()
    return all(container.status == "exited" for container in containers)


def test_a_node_that_is_killed_comes_back_and_the_student_is_the_same(data, network, tmp_path):
    """Node 0 holds the rendezvous and leads; without it the other ends, is started again, and waits for it."""
    image = docker_engine.image()
    output = data / "student"
    containers = pods(image, network, data, "student")
    try:
        for container in containers:
            container.start()
        until(lambda: list(output.glob(".checkpoint/step-*.json")), containers)
        containers[0].kill()
        until(lambda: containers[1].reload() or containers[1].attrs["RestartCount"], containers)
        assert not (output / manifest.NAME).exists()
        containers[0].start()
        until(lambda: ended(containers), containers)
        said = [container.logs().decode() for container in containers]
        assert [container.attrs["State"]["ExitCode"] for container in containers] == [0, 0], said
        assert "cliprd: error: " in said[1]
        assert "Run the same command to resume from the last checkpoint." in said[1]
        assert all(text.splitlines()[-1].startswith("distill: /data/student is whole") for text in said)
    finally:
        for container in containers:
            container.remove(force=True)
    manifest.verify(output, stage="distill")
    undisturbed = tmp_path / "undisturbed"
    folders = {name: data / name for name in ("shards", "cache")}
    distill.run(rooms.make_params(data, epochs=120, processes=2), folders, undisturbed)
    assert_near(history(output), history(undisturbed))
    found, expected = manifest.read(output), manifest.read(undisturbed)
    assert (found.params, found.inputs, found.files.keys()) == (
        expected.params,
        expected.inputs,
        expected.files.keys(),
    )


def test_wrong_input_ends_both_with_the_code_that_is_not_tried_again(data, network):
    containers = pods(docker_engine.image(), network, data, "wrong", crops=4)
    try:
        for container in containers:
            container.update(restart_policy={"Name": "no"})
            container.start()
        until(lambda: ended(containers), containers)
        assert [container.attrs["State"]["ExitCode"] for container in containers] == [3, 3]
        for container in containers:
            assert container.logs().decode().splitlines()[-1].startswith("cliprd: error: ")
    finally:
        for container in containers:
            container.remove(force=True)
