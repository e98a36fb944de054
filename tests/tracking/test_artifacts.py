"""The MLflow server's artifacts on a real S3 server, with nothing that would send its clients there."""

import boto3
import pytest
from mlflow.store.artifact.artifact_repo import MultipartDownloadMixin, MultipartUploadMixin, PresignedUploadMixin

from cliprd.tracking.artifacts import ProxiedS3
from tests import s3_server


@pytest.mark.integration
def test_files_go_to_s3_and_come_back(tmp_path, monkeypatch):
    (tmp_path / "buckets" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "d").mkdir(parents=True)
    (tmp_path / "out" / "a.txt").write_text("a")
    (tmp_path / "out" / "d" / "b.txt").write_text("b")
    with s3_server.running(tmp_path / "buckets") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        repository = ProxiedS3("cliprd-s3://runs/mlflow")
        repository.log_artifacts(str(tmp_path / "out"), "1/x")
        repository.log_artifact(str(tmp_path / "out" / "a.txt"), "1/y")
        assert [(f.path, f.is_dir) for f in repository.list_artifacts("1/x")] == [("1/x/a.txt", False), ("1/x/d", True)]
        keys = [found["Key"] for found in boto3.client("s3").list_objects_v2(Bucket="runs")["Contents"]]
        assert keys == ["mlflow/1/x/a.txt", "mlflow/1/x/d/b.txt", "mlflow/1/y/a.txt"]
        repository.download_artifacts("1/x/d/b.txt", str(tmp_path))
        assert (tmp_path / "1/x/d/b.txt").read_text() == "b"
        repository.delete_artifacts("1/x")
        assert repository.list_artifacts("1/x") == []


def test_the_server_offers_no_presigned_addresses():
    assert not issubclass(ProxiedS3, MultipartDownloadMixin | MultipartUploadMixin | PresignedUploadMixin)
