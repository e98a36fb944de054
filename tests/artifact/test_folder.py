"""Finished folders in S3: brought here checked, streamed file by file, or pointed to."""

import json
import os
import shutil

import pytest

from cliprd import files, storage
from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder
from cliprd.artifact.pointer import resolve, write_pointer
from cliprd.errors import InputError, RetryableError

pytestmark = pytest.mark.integration
URL = "s3://pairs/folder/student"


@pytest.fixture
def made(bucket, tmp_path):
    """A finished folder here, and the same at `URL`."""
    storage.remove(*(storage.join(URL, name) for name in storage.list_folder(URL)))
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "volatile").mkdir()
    for i, name in enumerate(("a", "deep/b", "deep/c")):
        (folder / name).write_bytes(bytes([i]) * 1000)
    (folder / "volatile/speed.json").write_text("1")
    manifest.write(folder, stage="distill", params={}, inputs={})
    for path in folder.rglob("*"):
        if path.is_file():
            storage.upload(path, storage.join(URL, path.relative_to(folder).as_posix()))
    return folder


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def flip(bucket, name):
    key = f"{storage.paths.split(URL)[1]}/{name}"
    data = bytearray(bucket.get_object(Bucket="pairs", Key=key)["Body"].read())
    data[len(data) // 2] ^= 1
    bucket.put_object(Bucket="pairs", Key=key, Body=bytes(data))


def test_a_manifest_is_read_and_checked_where_it_lies(made, bucket):
    assert manifest.verify(URL, stage="distill") == manifest.verify(made)
    with pytest.raises(InputError, match="made by stage 'distill'"):
        manifest.verify(URL, stage="cache")
    with pytest.raises(InputError, match=r"s3://pairs/folder/none does not exist.*Run `cliprd cache`"):
        manifest.verify("s3://pairs/folder/none", stage="cache")
    bucket.put_object(Bucket="pairs", Key="folder/student/deep/b", Body=b"short")
    with pytest.raises(InputError, match=r"student/deep/b is damaged: 5 bytes, expected 1000"):
        manifest.verify(URL)
    bucket.delete_object(Bucket="pairs", Key="folder/student/deep/b")
    with pytest.raises(InputError, match=r"student/deep/b is missing"):
        manifest.verify(URL)
    flip(bucket, "manifest.json")
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        manifest.verify(URL)
    storage.remove(f"{URL}/manifest.json")
    with pytest.raises(InputError, match="never finished"):
        manifest.verify(URL)


def test_fetched_once_and_again_only_what_is_not_whole(made, monkeypatch):
    assert fetch_folder(made) == made
    here = fetch_folder(URL)
    assert here.name == "student"
    assert tree(here) == tree(made)
    before = {name: (here / name).stat().st_mtime_ns for name in ("a", "deep/c")}
    (here / "deep/b").write_bytes(b"?" * 1000)
    assert fetch_folder(f"{URL}/") == here
    assert tree(here) == tree(made)
    assert {name: (here / name).stat().st_mtime_ns for name in before} == before


def test_a_flipped_byte_in_s3_is_refused_by_name(made, bucket):
    flip(bucket, "deep/b")
    with pytest.raises(InputError, match=r"s3://pairs/folder/student/deep/b is damaged: sha256"):
        fetch_folder(URL)
    entry = manifest.read(URL).files["deep/b"]
    with (
        pytest.raises(InputError, match=r"student/deep/b is damaged: sha256"),
        storage.local_file(URL, "deep/b", **entry),
    ):
        pass


def test_streamed_files_are_kept_as_long_as_there_is_room(made, scratch, monkeypatch):
    files = manifest.read(URL).files
    with storage.local_file(made, "a", **files["a"]) as path:
        assert path == made / "a"  # no copy of what is here
    monkeypatch.setenv("CLIPRD_CACHE_BYTES", "2500")

    def kept():
        return sorted(path.name.split("-", 1)[1] for path in (scratch / "files").iterdir())

    def read(name):
        with storage.local_file(URL, name, **files[name]) as path:
            return path.read_bytes()

    assert read("a") == (made / "a").read_bytes()
    assert read("deep/b") == (made / "deep/b").read_bytes()
    os.utime(next((scratch / "files").glob("*-a")), (1, 1))  # used longest ago
    with storage.local_file(URL, "deep/c", **files["deep/c"]) as held:
        assert kept() == ["deep_b", "deep_c"]
        os.utime(held, (1, 1))
        assert read("a") == (made / "a").read_bytes()
        assert kept() == ["a", "deep_c"]  # what is in use stays, though it is the oldest
    monkeypatch.setattr(storage.downloads, "download", lambda *_, **__: pytest.fail("fetched again"))
    read("a")


def test_a_pointer_stands_for_the_folder_as_long_as_it_is_that_one(made, bucket, tmp_path):
    pointer = tmp_path / "pointer"
    write_pointer(pointer, URL)
    assert sorted(os.listdir(pointer)) == ["location.json", "manifest.json"]
    assert resolve(pointer) == URL
    assert resolve(str(pointer)) == URL
    assert resolve(made) == made
    assert manifest.verify(pointer) == manifest.read(made)
    assert tree(fetch_folder(pointer)) == tree(made)
    (made / "a").write_bytes(b"new")
    manifest.write(made, stage="distill", params={}, inputs={})
    storage.upload(made / "manifest.json", f"{URL}/manifest.json")
    with pytest.raises(InputError, match=r"was made anew since .*pointer was written"):
        resolve(pointer)
    storage.remove(f"{URL}/manifest.json")
    with pytest.raises(InputError, match="is gone or unfinished"):
        manifest.verify(pointer)
    with pytest.raises(InputError, match="never finished"):
        write_pointer(tmp_path / "other", URL)
    (pointer / "location.json").write_text(json.dumps({"url": "/etc"}))
    with pytest.raises(InputError, match="not in S3"):
        resolve(pointer)
    (pointer / "location.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        resolve(pointer)


def test_a_folder_without_a_manifest(made, bucket):
    here = storage.fetch_tree(URL, lambda name: name.startswith("deep/"))
    assert sorted(os.listdir(here / "deep")) == ["b", "c"]
    assert os.listdir(here / "volatile") == []
    bucket.put_object(Bucket="pairs", Key="folder/student/deep/b", Body=b"new")
    assert (storage.fetch_tree(URL, lambda name: name.startswith("deep/")) / "deep/b").read_bytes() == b"new"
    assert storage.fetch_tree(str(made)) == made
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RetryableError, match=r"deep/c was replaced while"):
        listed = storage.downloads.entries(URL)
        patch.setattr(storage.downloads, "entries", lambda url: listed)
        bucket.put_object(Bucket="pairs", Key="folder/student/deep/c", Body=b"and newer")
        shutil.rmtree(here.parent.parent)
        storage.fetch_tree(URL)
    with pytest.raises(InputError, match="does not exist"):
        storage.fetch_tree("s3://pairs/folder/none")


def test_addresses():
    from pathlib import Path

    assert storage.parse("s3://a/b/") == "s3://a/b"
    assert storage.parse(Path("s3://a/b")) == "s3://a/b"
    assert storage.parse("a//b/") == Path("a/b")
    with pytest.raises(InputError, match="no bucket"):
        storage.parse("s3:///b")


def test_names_that_lead_out_of_a_folder_are_refused(made, tmp_path):
    body = json.loads((made / "manifest.json").read_text())
    body["files"]["../../x"] = body["files"].pop("a")
    del body["digest"]
    files.write_json(made / "manifest.json", {**body, "digest": files.digest(body)})
    storage.upload(made / "manifest.json", f"{URL}/manifest.json")
    with pytest.raises(InputError, match="no name of a file inside"):
        fetch_folder(URL)


def test_scratch_that_cannot_be_made_is_one_line(monkeypatch, tmp_path):
    from cliprd.errors import MachineError

    (tmp_path / "file").touch()
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "file/x"))
    with pytest.raises(MachineError, match="CLIPRD_SCRATCH"):
        storage.scratch()
    shutil.rmtree(tmp_path, ignore_errors=True)
