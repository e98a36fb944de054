"""Whole objects up and down: equal bytes whatever the network does, or a clear refusal."""

import hashlib
import random

import pytest

from cliprd import storage
from cliprd.errors import InputError, RetryableError
from cliprd.storage import streams, transfer

pytestmark = pytest.mark.integration
PART = 5 << 20  # S3's least


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(transfer, "PART", PART)


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, PART, 2 * PART + 3])
def test_there_and_back(bucket, tmp_path, size):
    data = content(size)
    (tmp_path / "a").write_bytes(data)
    storage.upload(tmp_path / "a", "s3://pairs/back/a")
    tag = bucket.head_object(Bucket="pairs", Key="back/a")["ETag"]
    assert ("-" in tag) == (size >= PART)  # S3 marks what came in parts so
    checked = bucket.head_object(Bucket="pairs", Key="back/a", ChecksumMode="ENABLED")
    assert any(name.startswith("Checksum") for name in checked)
    storage.download("s3://pairs/back/a", tmp_path / "b", size=size, sha256=sha256(data))
    assert (tmp_path / "b").read_bytes() == data
    assert sorted(path.name for path in tmp_path.glob("*")) == ["a", "b"]
    storage.copy("s3://pairs/back/a", "s3://pairs/back/deep/c")
    assert storage.list_folder("s3://pairs/back/") == {"a": size, "deep/c": size}
    storage.remove("s3://pairs/back/a", "s3://pairs/back/deep/c", "s3://pairs/back/none")
    assert storage.list_folder("s3://pairs/back") == {}


def test_a_folder_is_not_its_namesake(bucket, tmp_path):
    for name in ("one/a", "one2/b", "one.c"):
        bucket.put_object(Bucket="pairs", Key=f"names/{name}", Body=b"x")
    assert storage.list_folder("s3://pairs/names/one") == {"a": 1}


def test_listings_of_many_pages(bucket, monkeypatch):
    for i in range(7):
        bucket.put_object(Bucket="pairs", Key=f"many/{i}", Body=b"x" * i)
    real = bucket.list_objects_v2
    from cliprd.storage import s3

    monkeypatch.setattr(s3.client(), "list_objects_v2", lambda **options: real(MaxKeys=3, **options))
    assert storage.list_folder("s3://pairs/many") == {str(i): i for i in range(7)}


def test_parts_that_a_killed_process_has_left_are_forgotten(bucket):
    for name in ("left/a", "left2/b"):
        bucket.create_multipart_upload(Bucket="pairs", Key=name)
    transfer.abandon_uploads("s3://pairs/left")
    assert [item["Key"] for item in bucket.list_multipart_uploads(Bucket="pairs")["Uploads"]] == ["left2/b"]
    transfer.abandon_uploads("s3://nowhere/left")


def test_a_wrong_size_or_content_is_refused_and_leaves_no_file(bucket, tmp_path):
    data = content(1000)
    bucket.put_object(Bucket="pairs", Key="wrong", Body=data)
    with pytest.raises(InputError, match=r"s3://pairs/wrong is damaged: 1000 bytes, expected 999"):
        storage.download("s3://pairs/wrong", tmp_path / "x", size=999)
    with pytest.raises(InputError, match=r"s3://pairs/wrong is damaged: sha256"):
        storage.download("s3://pairs/wrong", tmp_path / "x", sha256=sha256(b"other"))
    with pytest.raises(storage.Missing):
        storage.download("s3://pairs/none", tmp_path / "x")
    assert list(tmp_path.glob("*")) == []


def test_a_download_goes_on_where_it_stopped(bucket, tmp_path, monkeypatch):
    data = content(3 * PART)
    bucket.put_object(Bucket="pairs", Key="resume", Body=data)
    real, begun = transfer.ObjectReader, []

    def broken(url, *, start, **options):
        begun.append(start)
        if start >= 2 * PART and len(begun) <= 3:
            raise RetryableError("gone")
        return real(url, start=start, **options)

    monkeypatch.setattr(transfer, "ObjectReader", broken)
    with pytest.raises(RetryableError, match="gone"):
        storage.download("s3://pairs/resume", tmp_path / "x", sha256=sha256(data))
    (part,) = tmp_path.glob(".x.*.part")
    assert part.stat().st_size == 2 * PART
    storage.download("s3://pairs/resume", tmp_path / "x", sha256=sha256(data))
    assert sorted(begun) == [0, PART, 2 * PART, 2 * PART]
    assert (tmp_path / "x").read_bytes() == data


def test_a_damaged_part_is_fetched_anew(bucket, tmp_path):
    data = content(1000)
    bucket.put_object(Bucket="pairs", Key="part", Body=data)
    part = tmp_path / f".x.{storage.paths.label(transfer.head('s3://pairs/part').etag)}.part"
    part.write_bytes(b"?" * 500)
    storage.download("s3://pairs/part", tmp_path / "x", sha256=sha256(data))
    assert (tmp_path / "x").read_bytes() == data


def test_an_object_replaced_while_it_is_read_is_no_mixture(bucket):
    size = 40 * streams._BUFFER
    bucket.put_object(Bucket="pairs", Key="moving", Body=b"a" * size)
    reader = streams.ObjectReader("s3://pairs/moving")
    assert reader.read(10) == b"a" * 10
    bucket.put_object(Bucket="pairs", Key="moving", Body=b"b" * size)
    reader._disconnect()
    with pytest.raises(RetryableError, match="PreconditionFailed"):
        reader.read(10)


def test_through_all_faults_every_byte_arrives(faults, bucket, tmp_path):
    files = {f"{i}": content(size, i) for i, size in enumerate((0, 10, 70_000, 300_000, PART + 1, 2 * PART + 7))}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    faults.plan(25)
    for name in files:
        storage.upload(tmp_path / name, f"s3://pairs/faulty/{name}")
    assert faults.seen
    for name, data in files.items():
        assert bucket.get_object(Bucket="pairs", Key=f"faulty/{name}")["Body"].read() == data
    faults.plan(25)
    assert storage.list_folder("s3://pairs/faulty") == {name: len(data) for name, data in files.items()}
    for name, data in files.items():
        storage.download(f"s3://pairs/faulty/{name}", tmp_path / "down" / name)
        assert (tmp_path / "down" / name).read_bytes() == data
        with storage.open_stream(f"s3://pairs/faulty/{name}") as stream:
            assert stream.read() == data
    assert faults.seen
    storage.remove(*(f"s3://pairs/faulty/{name}" for name in files))
    assert storage.list_folder("s3://pairs/faulty") == {}


@pytest.mark.parametrize("kind", ["truncate", "reset", "drop", "error", "trickle"])
def test_each_fault_alone(faults, bucket, kind):
    data = content(600_000)
    bucket.put_object(Bucket="pairs", Key="alone", Body=data)
    faults.plan(4, [kind], rate=1)
    with storage.open_stream("s3://pairs/alone") as stream:
        assert stream.read() == data
    assert faults.seen[kind]


@pytest.mark.parametrize("kind", ["truncate", "drop"])
def test_what_never_ends_is_an_error_and_not_a_shorter_file(faults, bucket, tmp_path, monkeypatch, kind):
    """Where replies are cut but bring something each time, it may come to a good end; never to a wrong one."""
    data = content(600_000)
    bucket.put_object(Bucket="pairs", Key="cut/a", Body=data)
    monkeypatch.setattr(storage.s3, "ATTEMPTS", 2)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    storage.s3.client.cache_clear()

    def read():
        with storage.open_stream("s3://pairs/cut/a") as stream:
            return stream.read()

    def fetch():
        storage.download("s3://pairs/cut/a", tmp_path / "x")
        return (tmp_path / "x").read_bytes()

    faults.plan(1000, [kind], rate=1)
    for call, good in [(read, data), (fetch, data), (lambda: storage.list_folder("s3://pairs/cut"), {"a": len(data)})]:
        try:
            assert call() == good
            assert kind != "drop"
        except RetryableError:
            pass
