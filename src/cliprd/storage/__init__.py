"""Paths that are local or `s3://bucket/key`, and stage folders that lie in either.

The rest of cliprd says what it wants by `Location` and gets local files: `local_file` and `fetch_folder` bring what is
in S3, checked; `Workspace` has a stage's output mirrored there. boto3's usual places give endpoint, region and
credentials. What is kept on this machine lies under `scratch()`.
"""

from cliprd.storage.cache import local_file
from cliprd.storage.content import fingerprints
from cliprd.storage.folder import (
    await_finished,
    fetch_file,
    fetch_folder,
    fetch_tree,
    put_folder,
    resolve,
    write_pointer,
)
from cliprd.storage.listing import NoFiles, expand_braces, list_files, literal_part
from cliprd.storage.paths import SCHEME, BadAddress, Location, is_s3, join, parse, scratch
from cliprd.storage.s3 import Missing, TakenOverError
from cliprd.storage.streams import open_stream, read_bytes, write_bytes
from cliprd.storage.swap import swap
from cliprd.storage.transfer import copy, download, etag, list_folder, remove, upload, versions

__all__ = [
    "SCHEME",
    "BadAddress",
    "Location",
    "Missing",
    "NoFiles",
    "TakenOverError",
    "await_finished",
    "copy",
    "download",
    "etag",
    "expand_braces",
    "fetch_file",
    "fetch_folder",
    "fetch_tree",
    "fingerprints",
    "is_s3",
    "join",
    "list_files",
    "list_folder",
    "literal_part",
    "local_file",
    "open_stream",
    "parse",
    "put_folder",
    "read_bytes",
    "remove",
    "resolve",
    "scratch",
    "swap",
    "upload",
    "versions",
    "write_bytes",
    "write_pointer",
]
