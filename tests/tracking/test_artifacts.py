"""The MLflow server's artifacts on a real S3 server, with nothing that would send its clients there."""

from pathlib import Path

import boto3
import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repo import MultipartDownloadMixin, PresignedUploadMixin

from cliprd.tracking import server
from cliprd.tracking.artifacts import ProxiedS3
from tests.mlflow_server import BUCKET, mlflow_server  # noqa: F401 — a fixture

pytestmark = pytest.mark.integration
PART = 5 * 2**20  # the least that S3 takes


@pytest.fixture
def s3(mlflow_server, monkeypatch):  # noqa: F811
    for name, value in mlflow_server.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return boto3.client("s3")


def keys(s3, prefix):
    return [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())]


def test_files_go_to_s3_and_come_back(s3, tmp_path):
    (tmp_path / "out" / "d").mkdir(parents=True)
    (tmp_path / "out" / "a.txt").write_text("a")
    (tmp_path / "out" / "d" / "b.txt").write_text("b")
    repository = ProxiedS3(f"cliprd-s3://{BUCKET}/direct")
    repository.log_artifacts(str(tmp_path / "out"), "1/x")
    repository.log_artifact(str(tmp_path / "out" / "a.txt"), "1/y")
    assert [(f.path, f.is_dir) for f in repository.list_artifacts("1/x")] == [("1/x/a.txt", False), ("1/x/d", True)]
    assert keys(s3, "direct/") == ["direct/1/x/a.txt", "direct/1/x/d/b.txt", "direct/1/y/a.txt"]
    repository.download_artifacts("1/x/d/b.txt", str(tmp_path))
    assert (tmp_path / "1/x/d/b.txt").read_text() == "b"
    repository.delete_artifacts("1/x")
    assert repository.list_artifacts("1/x") == []


def test_the_server_offers_no_presigned_addresses():
    assert not issubclass(ProxiedS3, MultipartDownloadMixin | PresignedUploadMixin)


@pytest.fixture
def run(mlflow_server, request):  # noqa: F811
    server.connect(mlflow_server.uri)  # its defaults
    client = MlflowClient(mlflow_server.uri)
    return client, client.create_run(client.create_experiment(request.node.name)).info


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file of three parts."""
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(PART))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(PART))
    file = tmp_path / "large file.bin"
    file.write_bytes(bytes(range(256)) * (2 * PART // 256) + b"the end")
    return file


def test_a_large_file_comes_to_s3_in_parts_through_the_server(s3, run, large, tmp_path):
    client, info = run
    client.log_artifact(info.run_id, str(large), "models")
    (key,) = keys(s3, f"artifacts/{info.experiment_id}/{info.run_id}")
    assert key.endswith("/artifacts/models/large file.bin")
    assert s3.head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"').endswith("-3")  # S3's mark of three parts
    copy = client.download_artifacts(info.run_id, "models/large file.bin", str(tmp_path))
    assert Path(copy).read_bytes() == large.read_bytes()


def test_a_part_that_does_not_come_leaves_nothing(s3, run, large, monkeypatch):
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    send = HttpArtifactRepository._upload_part

    def lossy(credential, *arguments, **more):
        if credential.part_number == 2:
            raise ConnectionError("lost")
        return send(credential, *arguments, **more)

    monkeypatch.setattr(HttpArtifactRepository, "_upload_part", staticmethod(lossy))
    client, info = run
    with pytest.raises(Exception, match="part of"):
        client.log_artifact(info.run_id, str(large))
    assert keys(s3, f"artifacts/{info.experiment_id}/{info.run_id}") == []
    assert not s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
