"""The local stack of docker/compose.yaml, brought up for real by docker/stack.sh: tracked, kept, shut in, refused."""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import boto3
import botocore.exceptions
import pytest
from mlflow import MlflowClient

from cliprd.tracking import scores
from tests.ports import free_port
from tests.report import folders
from tests.tracking.trainings import inputs, record, training, tree

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docker" / "stack.sh"
SERVICES = {"postgres", "s3", "prepare", "mlflow"}
OWN = ("STACK_", "MLFLOW_", "S3_", "AWS_", "COMPOSE_")  # what would change the shipped defaults, but for the images
IMAGES = ("CLIPRD_IMAGE", "POSTGRES_IMAGE", "S3_IMAGE")

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def clean() -> dict[str, str]:
    """The caller's environment, less the settings of a stack of theirs."""
    return {name: value for name, value in os.environ.items() if name in IMAGES or not name.startswith(OWN)}


def call(*command: str | Path, env: dict[str, str] | None = None, check: bool = True, stdin: str | None = None):
    result = subprocess.run(command, env=env or clean(), capture_output=True, text=True, input=stdin)
    assert not check or result.returncode == 0, f"{command}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result


def missing(reason: str):
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def compose() -> list[str]:
    """The compose of this machine, as docker/stack.sh chooses it."""
    if call("docker", "compose", "version", check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"]


class Stack:
    """A stack of its own name, ports and secrets."""

    def __init__(self, folder: Path):
        self.project = f"cliprd-test-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.mlflow_port, self.s3_port = str(free_port()), str(free_port())
        self.env = {
            **clean(),
            "STACK_PROJECT": self.project,
            "STACK_DIR": str(folder),
            "MLFLOW_PORT": self.mlflow_port,
            "S3_PORT": self.s3_port,
        }
        self.url = f"http://127.0.0.1:{self.mlflow_port}"

    def __call__(self, *arguments: str, check: bool = True, **env: str):
        return call(SCRIPT, *arguments, env={**self.env, **env}, check=check)

    def containers(self) -> dict[str, dict]:
        """Service → what `docker inspect` says."""
        ids = call("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}").stdout.split()
        found = json.loads(call("docker", "inspect", *ids).stdout)
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def wait(self, service: str) -> None:
        for _ in range(600):
            if self.containers()[service]["State"]["Health"]["Status"] == "healthy":
                return
            time.sleep(0.5)
        pytest.fail(f"{service} did not get healthy")

    def execute(self, service: str, *command: str, check: bool = True, stdin: str | None = None):
        return call("docker", "exec", "-i", self.containers()[service]["Id"], *command, check=check, stdin=stdin)

    def sql(self, query: str) -> str:
        return self.execute("postgres", "psql", "-XAtU", "postgres", "mlflow", "-c", query).stdout.strip()

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text()

    def settings(self) -> dict[str, str]:
        """What a shell has after `. .stack/env`."""
        shell = call("env", "-i", "bash", "-c", f". {self.folder}/env && env").stdout
        return dict(line.split("=", 1) for line in shell.splitlines())

    def s3(self, **changes: str):
        settings = self.settings() | changes
        return boto3.client(
            "s3",
            endpoint_url=settings["AWS_ENDPOINT_URL"],
            aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
            region_name=settings["AWS_DEFAULT_REGION"],
        )


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    if not shutil.which("docker") or call("docker", "version", check=False).returncode:
        missing("no Docker engine here")
    if call("docker", "compose", "version", check=False).returncode and not shutil.which("docker-compose"):
        missing("neither `docker compose` nor `docker-compose` is here")
    stack = Stack(tmp_path_factory.mktemp("stack"))
    for image in stack("names").stdout.split():
        if call("docker", "image", "inspect", image, check=False).returncode:
            missing(f"the image {image} is not here; build it with `make images` and `make stack-images`")
    try:
        stack("up")
        yield stack
    finally:
        stack("down", "--volumes")
        for kind in ("container", "volume", "network"):
            left = call("docker", kind, "ls", "-q", "--filter", f"label=com.docker.compose.project={stack.project}")
            assert not left.stdout, f"{kind} left behind"


@pytest.fixture(scope="module")
def run(stack, tmp_path_factory) -> str:
    """The id of a training that cliprd tracked there, with its scores."""
    folder = tmp_path_factory.mktemp("trained")
    settings = tree(stack.url, "stack", distill={"lr": 0.001})
    grid = folders.write_grid(folder, ["clip_rd-raw"], [0], only=folders.tasks()[:1])
    student, scored = (grid[kind] / "clip_rd-raw-0" for kind in ("students", "benchmarks"))
    (scored / "scores.json").write_text('{"name": "scores.json"}')
    with training(settings, inputs(folder), student) as write:
        for step in (1, 2):
            write(record(step, 1 / step))
    return scores.log_scores(settings, student, scored, None)


def whole(stack: Stack, run: str, folder: Path) -> bool:
    client = MlflowClient(stack.url)
    found = client.get_run(run)
    file = client.download_artifacts(run, "benchmark/scores.json", str(folder))
    return (
        found.info.status == "FINISHED"
        and found.data.params["distill.lr"] == "0.001"
        and [m.value for m in client.get_metric_history(run, "loss/task")] == [1.0, 0.5]
        and json.loads(Path(file).read_text()) == {"name": "scores.json"}
    )


def test_a_run_is_in_postgresql_and_its_artifact_in_the_bucket(stack, run, tmp_path):
    assert whole(stack, run, tmp_path)
    assert stack.sql(f"SELECT status FROM runs WHERE run_uuid = '{run}'") == "FINISHED"
    assert stack.sql(f"SELECT value FROM params WHERE run_uuid = '{run}' AND key = 'distill.lr'") == "0.001"
    assert stack.sql(f"SELECT value FROM metrics WHERE run_uuid = '{run}' AND key = 'loss/task' AND step = 2") == "0.5"
    keys = [found["Key"] for found in stack.s3().list_objects_v2(Bucket="cliprd", Prefix="mlflow/")["Contents"]]
    (key,) = [key for key in keys if key.endswith(f"{run}/artifacts/benchmark/scores.json")]
    assert json.load(stack.s3().get_object(Bucket="cliprd", Key=key)["Body"]) == {"name": "scores.json"}


def test_the_page_answers_to_its_names_and_to_nobody_elses(stack):
    def status(**headers: str) -> int:
        data = b'{"name": "x"}' if "Origin" in headers else None
        path = "/api/2.0/mlflow/experiments/create" if data else "/"
        headers["Content-Type"] = "application/json"
        try:
            return urllib.request.urlopen(urllib.request.Request(stack.url + path, data, headers)).status
        except urllib.error.HTTPError as error:
            return error.code

    assert status(Host=f"localhost:{stack.mlflow_port}") == 200
    assert status(Host="rebound.example") == 403
    assert status(Origin="https://elsewhere.example") == 403
    assert status(Origin=f"http://localhost:{stack.mlflow_port}") == 200
    inside = "import urllib.request as r; print(r.urlopen('http://mlflow:5000/').status)"
    assert stack.execute("s3", "python3.11", "-c", inside).stdout.strip() == "200"


def test_every_container_is_shut_in(stack):
    containers = stack.containers()
    assert set(containers) == SERVICES
    for service, container in containers.items():
        host = container["HostConfig"]
        assert container["Config"]["User"].split(":")[0] not in ("", "0", "root"), service
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert not host["CapAdd"], service
        assert not host["Privileged"], service
        assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"]), service
        assert {mount["Type"] for mount in container["Mounts"]} <= {"bind", "volume", "tmpfs"}
        for mount in container["Mounts"]:
            if mount["Type"] == "bind":
                assert not mount["RW"], mount
                assert mount["Source"].startswith(f"{stack.folder}/secrets/"), mount
    for service in SERVICES - {"prepare"}:
        status = stack.execute(service, "cat", "/proc/1/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in fields["Uid"].split(), service
        assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}, service
        assert fields["NoNewPrivs"] == "1", service
        assert "Read-only file system" in stack.execute(service, "touch", "/usr/x", check=False).stderr
        assert containers[service]["State"]["Health"]["Status"] == "healthy"


def test_ports_are_open_on_the_loopback_only(stack):
    published = {}
    for service, container in stack.containers().items():
        for places in (container["NetworkSettings"]["Ports"] or {}).values():
            for place in places or []:
                assert place["HostIp"] == "127.0.0.1", service
                published[service] = place["HostPort"]
    assert published == {"mlflow": stack.mlflow_port, "s3": stack.s3_port}


def test_secrets_stand_in_no_description_and_no_image(stack):
    secrets = [stack.secret("postgres_password"), stack.secret("s3_secret_key")]
    assert all(len(secret) == 48 for secret in secrets)
    assert secrets[0] != secrets[1]
    told = json.dumps(stack.containers())
    for container in stack.containers().values():
        told += call("docker", "logs", container["Id"]).stdout + call("docker", "logs", container["Id"]).stderr
        told += call("docker", "top", container["Id"], check=False).stdout
        told += call("docker", "history", "--no-trunc", container["Image"]).stdout
        told += call("docker", "image", "inspect", container["Image"]).stdout
    assert not [secret for secret in secrets if secret in told]
    for service in ("postgres", "s3", "mlflow"):  # nor a key that the distribution made for the machine
        assert not stack.execute(service, "sh", "-c", "ls /etc/ssl/private 2>/dev/null", check=False).stdout
    assert (stack.folder / "env").stat().st_mode & 0o777 == 0o600
    assert (stack.folder / "secrets").stat().st_mode & 0o777 == 0o700


def test_nobody_gets_in_without_the_secrets(stack):
    settings = stack.settings()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{settings['AWS_ENDPOINT_URL']}/cliprd?list-type=2")
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        stack.s3(AWS_SECRET_ACCESS_KEY="cliprd").list_buckets()
    connect = "import os, sqlalchemy as s; s.create_engine(os.environ['MLFLOW_BACKEND_STORE_URI']).connect()"
    for password, words in (("", "no password supplied"), ("mlflow", "password authentication failed")):
        refused = stack.execute("mlflow", "env", f"PGPASSWORD={password}", "python", "-c", connect, check=False)
        assert refused.returncode == 1
        assert words in refused.stderr
    assert stack.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'mlflow'") == "f"
    (network,) = stack.containers()["postgres"]["NetworkSettings"]["Networks"]
    assert call("docker", "network", "inspect", "-f", "{{.Internal}}", network).stdout.strip() == "true"


def test_without_secrets_nothing_starts_and_the_cure_is_told(stack, tmp_path):
    bare = clean() | dict.fromkeys(IMAGES, "x")
    command = [*compose(), "-p", f"{stack.project}-bare", "-f", str(ROOT / "docker/compose.yaml"), "up"]
    refused = call(*command, env=bare, check=False)
    assert refused.returncode != 0
    assert "STACK_SECRETS" in refused.stderr
    assert "make stack" in refused.stderr

    image = stack.containers()["postgres"]["Config"]["Image"]
    refused = call("docker", "run", "--rm", "--network", "none", image, check=False)
    assert refused.returncode != 0
    assert "POSTGRES_PASSWORD_FILE" in refused.stderr

    refused = stack("up", check=False, STACK_DIR=str(tmp_path))  # the data are there, the secrets are lost
    assert refused.returncode == 1
    assert "made with secrets that are gone" in refused.stderr
    assert not list(tmp_path.rglob("*password*"))


def test_a_restarted_server_knows_its_runs(stack, run, tmp_path):
    before = stack.containers()["mlflow"]["State"]["StartedAt"]
    call("docker", "restart", stack.containers()["mlflow"]["Id"])
    stack.wait("mlflow")
    assert stack.containers()["mlflow"]["State"]["StartedAt"] > before
    assert whole(stack, run, tmp_path)


def test_data_and_secrets_outlive_the_stack(stack, run, tmp_path):
    secret = stack.secret("postgres_password")
    stack("down")
    assert not call("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={stack.project}").stdout
    stack("up")
    assert stack.secret("postgres_password") == secret
    assert whole(stack, run, tmp_path)
