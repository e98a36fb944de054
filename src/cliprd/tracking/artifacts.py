"""Artifacts in S3 that only the MLflow server reaches: `--artifacts-destination cliprd-s3://<bucket>/<prefix>`.

Behind an `s3://` destination MLflow's server hands its clients presigned addresses at the S3 server, and has no option
against it. Where that server is known to the MLflow server alone (by the name of a container, say), clients wait for
minutes and fail. Behind this destination every byte goes through the MLflow server. Named in pyproject.toml's entry
points, by which MLflow finds it.

A file that comes whole lies in the server's temporary folder until all of it is in S3, and its client waits for an
answer meanwhile, until it gives up. So large ones come in parts: a client that would send them to presigned addresses
(`MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD`, which cliprd's own clients set) gets addresses of this server, where each part
comes like a small artifact and goes on to S3 at once, as a part of the one object.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow.entities.multipart_upload import CreateMultipartUploadResponse, MultipartUploadCredential
from mlflow.store.artifact.artifact_repo import ArtifactRepository, MultipartUploadMixin

SCHEME = "cliprd-s3"
_PARTS = ".parts-of-"  # <artifact>/.parts-of-<upload>/<number>: where a part is sent to
_CREATE, _UPLOAD = "/mlflow-artifacts/mpu/create", "/mlflow-artifacts/artifacts"  # of MLflow's server


class ProxiedS3(ArtifactRepository, MultipartUploadMixin):  # type: ignore[misc]  # MLflow is untyped to mypy
    """MLflow's S3 repository without what makes its server offer presigned addresses, two of its mix-in classes."""

    def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
        from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

        super().__init__(artifact_uri, *args, **kwargs)
        self._s3 = S3ArtifactRepository("s3" + artifact_uri.removeprefix(SCHEME), *args, **kwargs)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload a file, or a part of one."""
        folder, is_part, upload = (artifact_path or "").partition(f"/{_PARTS}")
        if not is_part:
            self._s3.log_artifact(local_file, artifact_path)
            return
        with open(local_file, "rb") as body:
            self._client.upload_part(
                **self._object(folder), UploadId=upload, PartNumber=int(Path(local_file).name), Body=body
            )

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload a folder."""
        self._s3.log_artifacts(local_dir, artifact_path)

    def create_multipart_upload(
        self, local_file: str, num_parts: int = 1, artifact_path: str | None = None
    ) -> CreateMultipartUploadResponse:
        """Begin an object of parts; the client is told to send them to this server. In a request to it only."""
        name = _joined(artifact_path, local_file)
        upload = self._client.create_multipart_upload(**self._object(name))["UploadId"]
        folder, headers = _addressed(f"{name}/{_PARTS}{upload}")
        parts = [MultipartUploadCredential(f"{folder}/{n}", n, headers) for n in range(1, num_parts + 1)]
        return CreateMultipartUploadResponse(upload, parts)

    def complete_multipart_upload(
        self, local_file: str, upload_id: str, parts: Sequence[Any] = (), artifact_path: str | None = None
    ) -> None:
        """Make the object of its parts, if as many have come as the client has sent.

        Raises:
            MlflowException: fewer.
        """
        from mlflow.exceptions import MlflowException

        place = {**self._object(_joined(artifact_path, local_file)), "UploadId": upload_id}
        there = [
            {"PartNumber": part["PartNumber"], "ETag": part["ETag"]}
            for listed in self._client.get_paginator("list_parts").paginate(**place)
            for part in listed.get("Parts", ())
        ]
        if [part["PartNumber"] for part in there] != list(range(1, len(parts) + 1)):
            raise MlflowException(f"{len(there)} of {len(parts)} parts of {Path(local_file).name} have come.")
        self._client.complete_multipart_upload(**place, MultipartUpload={"Parts": there})

    def abort_multipart_upload(self, local_file: str, upload_id: str, artifact_path: str | None = None) -> None:
        """Forget the parts."""
        self._client.abort_multipart_upload(**self._object(_joined(artifact_path, local_file)), UploadId=upload_id)

    def list_artifacts(self, path: str | None = None) -> list[Any]:
        """Files and folders directly under `path`."""
        found: list[Any] = self._s3.list_artifacts(path)
        return found

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._s3._download_file(remote_file_path, local_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Remove what is under a path."""
        self._s3.delete_artifacts(artifact_path)

    @property
    def _client(self) -> Any:
        return self._s3._get_s3_client()

    def _object(self, name: str) -> dict[str, str]:
        bucket, root = self._s3.parse_s3_compliant_uri(self._s3.artifact_uri)
        return {"Bucket": bucket, "Key": posixpath.join(root, name)}


def _joined(folder: str | None, local_file: str) -> str:
    return posixpath.join(folder or "", posixpath.basename(local_file))


def _addressed(name: str) -> tuple[str, dict[str, str]]:
    """Where this server takes the artifact `name` from the client that asks now, and what it has to say with it."""
    from flask import request

    address = request.base_url.partition(_CREATE)[0]
    scheme = request.headers.get("X-Forwarded-Proto") or request.scheme
    said = request.headers.get("Authorization")
    return (
        f"{scheme}://{address.partition('://')[2]}{_UPLOAD}/{quote(name)}",
        {"Authorization": said} if said else {},
    )
