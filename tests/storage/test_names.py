"""Names in a real S3 server: taken as they are, inputs and outputs alike."""

import pytest

from cliprd import storage
from cliprd.errors import InputError
from cliprd.params import Params
from cliprd.stages import prepare
from tests.data.pictures import pairs, write_tar

pytestmark = pytest.mark.integration


@pytest.fixture
def url(bucket):
    """An empty bucket."""
    bucket.create_bucket(Bucket="names")
    yield "s3://names"
    for item in bucket.list_objects_v2(Bucket="names").get("Contents", ()):
        bucket.delete_object(Bucket="names", Key=item["Key"])
    bucket.delete_bucket(Bucket="names")


def run(path, output):
    return prepare.run(Params.model_validate({"data": {"path": str(path)}}), {}, output)


@pytest.mark.parametrize("name", ["a b", "50%20", "#1", "a?b", "{0..1}", "[x]", "*", "caf\u00e9", "cafe\u0301", "it's"])
def test_names(url, tmp_path, name):
    tar = write_tar(tmp_path / "a.tar", pairs(2))
    storage.upload(tar, f"{url}/{name}/{name}.tar")
    for path in (f"{url}/{name}", f"{url}/{name}/{name}.tar", f"{url}/{name}/"):
        made = run(path, f"{url}/out {name}/shards")
        assert made.facts["samples"] == 2
        assert made.facts["sources"][0]["name"] == f"{name}.tar"
    assert "manifest.json" in storage.list_folder(f"{url}/out {name}/shards")


@pytest.mark.parametrize("address", ["{}//a//b", "{}/a//", "{}//", "{}/a/../b"])
def test_addresses_with_two_readings(url, tmp_path, address):
    place = address.format(url)
    tar = write_tar(tmp_path / "a.tar", pairs(1))
    with pytest.raises(storage.BadAddress, match=r"two slashes|between slashes"):
        run(tar, place)
    with pytest.raises(storage.BadAddress):
        run(place, tmp_path / "out")


def test_a_whole_bucket_is_a_folder(url, tmp_path):
    storage.upload(write_tar(tmp_path / "a.tar", pairs(1)), f"{url}/a.tar")
    assert run(url, tmp_path / "out").facts["samples"] == 1
    assert run(f"{url}/", tmp_path / "out2").facts["samples"] == 1
    with pytest.raises(InputError, match="holds no file"):
        run(f"{url}/none", tmp_path / "out3")
