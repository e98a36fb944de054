"""Artifacts in S3 that only the MLflow server reaches: `--artifacts-destination cliprd-s3://<bucket>/<prefix>`.

Behind an `s3://` destination MLflow's server hands its clients presigned addresses at the S3 server, and has no option
against it. Where that server is known to the MLflow server alone (by the name of a container, say), clients wait for
minutes and fail. Behind this destination every byte goes through the MLflow server. Named in pyproject.toml's entry
points, by which MLflow finds it.
"""

from __future__ import annotations

from typing import Any

from mlflow.store.artifact.artifact_repo import ArtifactRepository

SCHEME = "cliprd-s3"


class ProxiedS3(ArtifactRepository):  # type: ignore[misc]  # MLflow is untyped to mypy
    """MLflow's S3 repository without what makes its server offer presigned addresses, its mix-in classes."""

    def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
        from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

        super().__init__(artifact_uri, *args, **kwargs)
        self._s3 = S3ArtifactRepository("s3" + artifact_uri.removeprefix(SCHEME), *args, **kwargs)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload a file."""
        self._s3.log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload a folder."""
        self._s3.log_artifacts(local_dir, artifact_path)

    def list_artifacts(self, path: str | None = None) -> list[Any]:
        """Files and folders directly under `path`."""
        found: list[Any] = self._s3.list_artifacts(path)
        return found

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._s3._download_file(remote_file_path, local_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Remove what is under a path."""
        self._s3.delete_artifacts(artifact_path)
