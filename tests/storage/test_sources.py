"""Listing, opening and the records of sources: here and in a real S3."""

import pytest

from cliprd import storage
from cliprd.data.shards import ShardSet
from cliprd.data.sources import fingerprint, inventory, records
from cliprd.errors import InputError, RetryableError
from cliprd.params import Data, Params
from cliprd.stages import prepare
from cliprd.storage import s3
from tests.data.pictures import pairs, png, write_tar


def test_braces():
    assert storage.expand_braces("a{08..10}.tar") == ["a08.tar", "a09.tar", "a10.tar"]
    assert storage.expand_braces("{x,y}/{0..1}.tar") == ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]
    assert storage.expand_braces("plain.tar") == ["plain.tar"]


@pytest.mark.parametrize(
    "pattern",
    ["{5..3}", "{05..3}", "{1..5..2}", "{5..1..2}", "{0..10}", "{08..11}", "{1..010}", "{x,y}{0..1}", "{0..0}"],
)
def test_braces_are_those_of_webdataset(pattern):
    from braceexpand import braceexpand

    assert storage.expand_braces(pattern) == list(braceexpand(pattern))


@pytest.mark.parametrize("pattern", ["/x/{0..99999999999}.tar", "{0..999}{0..999}{0..9}"])
def test_braces_beyond_all_bounds(pattern, monkeypatch):
    from cliprd.storage import listing

    monkeypatch.setattr(listing, "MOST_FILES", 1000)
    with pytest.raises(InputError, match="more than 1,000 files"):
        storage.list_files(pattern, (".tar",))


def test_listing_is_sorted_and_any_case(tmp_path):
    for name in ("b.TAR", "a.tar", "c.txt", "d.tar.gz"):
        (tmp_path / name).touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/e.tar").touch()
    names = [path.rsplit("/", 1)[1] for path in storage.list_files(str(tmp_path), (".tar", ".tar.gz"))]
    assert names == ["a.tar", "b.TAR", "d.tar.gz"]
    assert len(storage.list_files(str(tmp_path), (".tar",), recursive=True)) == 3


def test_opening(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    with storage.open_stream(str(tmp_path / "a")) as file:
        assert file.read() == b"x"
    with pytest.raises(InputError, match="No such file"), storage.open_stream(str(tmp_path / "b")):
        pass
    with pytest.raises(PermissionError), storage.open_stream(str(tmp_path / "a")):
        raise PermissionError  # the caller's own failure is not taken for ours
    assert storage.read_bytes(str(tmp_path / "b")) is None
    assert storage.read_bytes(str(tmp_path / "a/b")) is None


@pytest.mark.integration
def test_s3_gives_the_same_records_as_the_disk(bucket, tmp_path):
    write_tar(tmp_path / "0.tar", pairs(3))
    write_tar(tmp_path / "1.tar.gz", pairs(2, start=3), mode="w:gz")
    for name in ("0.tar", "1.tar.gz"):
        bucket.upload_file(str(tmp_path / name), "pairs", f"train/{name}")
        bucket.upload_file(str(tmp_path / name), "pairs", f"train2/{name}")
    bucket.upload_file(str(tmp_path / "0.tar"), "pairs", "train/deep/9.tar")
    local = [(raw.key, raw.image, raw.captions) for raw in records(Data(path=str(tmp_path)))]
    for url in (
        "s3://pairs/train",
        "s3://pairs/train/",
        "s3://pairs/train/{0.tar,1.tar.gz}",
        "s3://pairs/train/?.tar*",
    ):
        assert [(raw.key, raw.image, raw.captions) for raw in records(Data(path=url))] == local, url
    data = Data(path="s3://pairs/train")
    before = fingerprint(data)
    prepare.run(Params(data=data), {}, tmp_path / "out")
    assert ShardSet.open(tmp_path / "out").samples == 5
    bucket.put_object(Bucket="pairs", Key="train/0.tar", Body=(tmp_path / "0.tar").read_bytes() + b"\0" * 512)
    assert fingerprint(data) != before
    listed = {source.name: source.fingerprint for source in inventory(data)}
    assert list(listed) == ["0.tar", "1.tar.gz"]
    for name, one in listed.items():  # asked for alone or found in a listing: the same
        assert [(part.name, part.fingerprint) for part in inventory(Data(path=f"s3://pairs/train/{name}"))] == [
            (name, one)
        ]
    made = prepare.run(Params(data=data), {}, tmp_path / "out")
    assert [(part["name"], part["fingerprint"]) for part in made.facts["sources"]] == list(listed.items())


@pytest.mark.integration
def test_s3_folder_and_csv(bucket, tmp_path):
    for i in range(2):
        bucket.put_object(Bucket="pairs", Key=f"folder/x/{i}.png", Body=png(i))
        bucket.put_object(Bucket="pairs", Key=f"folder/x/{i}.txt", Body=b"caption")
    bucket.put_object(
        Bucket="pairs",
        Key="t.csv",
        Body=b"filepath\ttitle\nfolder/x/0.png\ta\ns3://pairs/folder/x/1.png\tb\nno.png\tc\n",
    )
    found = list(records(Data(kind="folder", path="s3://pairs/folder")))
    assert [(raw.image, raw.captions) for raw in found] == [(png(i), (b"caption",)) for i in range(2)]
    found = list(records(Data(kind="csv", path="s3://pairs/t.csv")))
    assert [raw.image for raw in found] == [png(0), png(1), None]


@pytest.mark.integration
def test_s3_failures_are_told_apart(bucket, monkeypatch):
    with pytest.raises(InputError, match="NoSuchBucket"):
        storage.list_files("s3://nowhere/a", (".tar",))
    with pytest.raises(InputError, match="NoSuchKey"), storage.open_stream("s3://pairs/none.tar"):
        pass
    assert storage.read_bytes("s3://pairs/none.tar") is None
    with pytest.raises(InputError, match="NoSuchBucket"):
        storage.read_bytes("s3://nowhere/none.tar")
    with pytest.raises(InputError, match="not a valid address"):
        storage.list_folder("s3://no such/a")


@pytest.mark.integration
def test_no_server_and_wrong_credentials_are_one_line_without_secrets(bucket, monkeypatch):
    def message(kind, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        s3.client.cache_clear()
        with pytest.raises(kind) as caught:
            storage.list_files("s3://pairs/a", (".tar",))
        assert caught.type is kind
        assert "\n" not in str(caught.value)
        assert "hush" not in str(caught.value)
        return str(caught.value)

    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    assert "SignatureDoesNotMatch" in message(InputError, AWS_SECRET_ACCESS_KEY="hush-hush")
    assert "AWS_PROFILE" in message(InputError, AWS_ACCESS_KEY_ID="hush")
    assert "AWS_ENDPOINT_URL" in message(
        RetryableError, AWS_ENDPOINT_URL="http://user:hush@127.0.0.1:9", AWS_MAX_ATTEMPTS="1"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "no credentials" in message(InputError, AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE="/dev/null")


@pytest.mark.parametrize(
    ("code", "status", "kind", "words"),
    [
        ("ExpiredToken", 400, InputError, "expired credentials"),
        ("AccessDenied", 403, InputError, "access denied"),
        ("403", 403, InputError, "AWS_ACCESS_KEY_ID"),
        ("SlowDown", 503, RetryableError, "SlowDown"),
        ("RequestTimeout", 400, RetryableError, "RequestTimeout"),
        ("404", 404, storage.Missing, "does not exist"),
    ],
)
def test_what_the_store_refuses_is_sorted_into_what_heals_and_what_does_not(code, status, kind, words):
    from botocore.exceptions import ClientError

    reply = {"Error": {"Code": code, "Message": "hush"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(kind, match=words) as caught, s3.errors("s3://a/b"):
        raise ClientError(reply, "GetObject")
    assert "hush" not in str(caught.value)


ROWS = ["img/0.png", "./img/1.png", "../t/img/2.png", "img//3.png", "img/./4.png"]
NO_PLACE = ["../../../x.png", "s3://pairs/a/../x.png", "s3://pairs//x.png", "s3:///x.png"]


@pytest.mark.parametrize("where", ["here", "s3"])
def test_paths_of_a_table_mean_the_same_here_and_in_s3(bucket, tmp_path, where):
    table = ("filepath\ttitle\n" + "".join(f"{name}\ta cat\n" for name in [*ROWS, *NO_PLACE])).encode()
    if where == "s3":
        bucket.put_object(Bucket="pairs", Key="t/t.tsv", Body=table)
        for i in range(len(ROWS)):
            bucket.put_object(Bucket="pairs", Key=f"t/img/{i}.png", Body=png(i))
    else:
        (tmp_path / "t/img").mkdir(parents=True)
        (tmp_path / "t/t.tsv").write_bytes(table)
        for i in range(len(ROWS)):
            (tmp_path / f"t/img/{i}.png").write_bytes(png(i))
    place = "s3://pairs/t/t.tsv" if where == "s3" else str(tmp_path / "t/t.tsv")
    data = Data(kind="csv", path=place)
    assert len(inventory(data)) == 1, "a row that names nothing does not end the command"
    found = list(records(data))
    assert [raw.image for raw in found[: len(ROWS)]] == [png(i) for i in range(len(ROWS))]
    assert [raw.fault and raw.fault[0] for raw in found[len(ROWS) :]] == ["missing_image"] * len(NO_PLACE)
