"""Paths that are local or `s3://bucket/key`, and files that lie in either.

Callers name a `Location` and get local files: `local_file` downloads what is in S3, checked. boto3's usual places give
endpoint, region and credentials. What is kept on this machine lies under `scratch()`.
"""

from cliprd.storage.content import fingerprints, sha256
from cliprd.storage.downloads import fetch_file, fetch_tree, local_file
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
    "copy",
    "download",
    "etag",
    "expand_braces",
    "fetch_file",
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
    "read_bytes",
    "remove",
    "scratch",
    "sha256",
    "swap",
    "upload",
    "versions",
    "write_bytes",
]
