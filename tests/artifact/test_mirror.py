"""An output folder in S3: followed while the work runs, taken over by another machine, finished manifest last."""

import shutil
import time

import pytest

from cliprd import storage
from cliprd.artifact import manifest, mirror
from cliprd.artifact.workspace import Workspace
from cliprd.errors import EnvironmentError_, InputError, RetryableError
from cliprd.files import atomic_write
from tests.artifact.test_folder import tree

pytestmark = pytest.mark.integration


@pytest.fixture
def url(bucket, request, monkeypatch):
    monkeypatch.setattr(mirror, "INTERVAL", 0.02)
    return f"s3://pairs/mirror/{request.node.name}"


def work(url, **changes):
    return Workspace(url, **{"stage": "cache", "params": {"views": 1}, "inputs": {"shards": "aa"}, **changes})


def there(url):
    """What lies in S3, beside the code version of finished work."""
    return sorted(storage.list_folder(url).keys() - {manifest.CODE})


def until(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not come")


def put(folder, name, text):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path, "w") as file:
        file.write(text)


class Lost(Exception):
    """The machine."""


def lost_machine(url, scratch, files, seen):
    """Begins the work, writes `files`, and is gone with its disk when `seen` is there."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Lost), work(url) as begun:
        for name, text in files.items():
            put(begun.path, name, text)
        until(lambda: set(seen) <= set(there(url)))
        patch.setattr(mirror.Mirror, "_send", lambda *_, **__: None)  # nothing more is sent
        raise Lost
    shutil.rmtree(scratch)


def test_finished_work_is_whole_there_and_nothing_stays_here(url, scratch):
    with work(url) as first:
        assert first.finished is None
        put(first.path, "x", "1")
        put(first.path, "volatile/t", "2")
        put(first.path, ".checkpoint/1", "3")
        (first.path / ".x.abc.tmp").write_text("half")
        until(lambda: ".checkpoint/1" in there(url))
        assert "manifest.json" not in there(url)
        done = first.finish(facts={"n": 1})
        assert there(url) == ["manifest.json", "volatile/t", "x"]
    assert list((scratch / "outputs").iterdir()) == []
    assert manifest.verify(url) == done
    with work(url) as second:
        assert second.finished == done
    assert list((scratch / "outputs").iterdir()) == []


def test_another_machine_goes_on_from_what_was_sent(url, scratch):
    lost_machine(url, scratch, {"a": "1", ".checkpoint/step": "2"}, ["a", ".checkpoint/step"])
    with work(url) as again:
        assert again.resumed
        assert (again.path / "a").read_text() == "1"
        assert (again.path / ".checkpoint/step").read_text() == "2"
        put(again.path, "b", "3")
        again.finish()
    assert there(url) == ["a", "b", "manifest.json"]


@pytest.mark.parametrize("change", [{"params": {"views": 2}}, {"stage": "distill"}])
def test_other_work_starts_from_an_empty_place(url, scratch, change):
    lost_machine(url, scratch, {"a": "1"}, ["a"])
    with work(url, **change) as other:
        assert not other.resumed
        assert not (other.path / "a").exists()
        assert there(url) == [".work.json"]
        put(other.path, "b", "2")
        other.finish()
    assert there(url) == ["b", "manifest.json"]
    with work(url) as first:
        assert first.finished is None
        assert there(url) == [".work.json"]  # the manifest went, too


def test_the_same_machine_goes_on_from_its_own_disk(url, scratch, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Lost), work(url) as killed:
        put(killed.path, "a", "1")
        until(lambda: "a" in there(url))
        patch.setattr(mirror.Mirror, "_send", lambda *_, **__: None)
        put(killed.path, "b", "2")
        raise Lost
    monkeypatch.setattr(mirror, "download", lambda *_, **__: pytest.fail("brought"))
    sent = []
    real = mirror.upload
    monkeypatch.setattr(mirror, "upload", lambda path, to: (sent.append(path.name), real(path, to))[1])
    with work(url) as again:
        assert again.resumed
        assert (again.path / "b").read_text() == "2"
        again.finish()
    assert there(url) == ["a", "b", "manifest.json"]
    assert "a" not in sent


def test_a_disk_that_another_machine_has_overtaken_is_not_mixed_with_its_work(url, scratch, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Lost), work(url) as first:
        put(first.path, "log", "1 2")
        until(lambda: "log" in there(url))
        patch.setattr(mirror.Mirror, "_send", lambda *_, **__: None)
        put(first.path, "only-here", "")
        raise Lost
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "second"))
    lost_machine(url, tmp_path / "second", {"log": "1 2 3", ".checkpoint/3": "x"}, [".checkpoint/3"])
    monkeypatch.setenv("CLIPRD_SCRATCH", str(scratch))
    with work(url) as again:
        assert tree(again.path).keys() >= {"log", ".checkpoint/3"}
        assert (again.path / "log").read_text() == "1 2 3"
        assert not (again.path / "only-here").exists()


def test_killed_while_it_was_sent_at_the_end(url, scratch, monkeypatch):
    real = mirror.upload

    def dies(path, to):
        if path.name == "manifest.json":
            raise Lost
        return real(path, to)

    with monkeypatch.context() as patch, pytest.raises(Lost), work(url) as killed:
        put(killed.path, "a", "1")
        patch.setattr(mirror, "upload", dies)
        killed.finish()
    assert "manifest.json" not in there(url)
    with work(url) as again:
        assert again.finished  # all was done but this
    assert there(url) == ["a", "manifest.json"]
    manifest.verify(url)


def test_of_two_writers_the_last_to_begin_goes_on(url, scratch, tmp_path, monkeypatch):
    with pytest.raises(EnvironmentError_, match="another cliprd process, which began after"), work(url) as first:
        put(first.path, "a", "1")
        until(lambda: "a" in there(url))
        monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "second"))
        with work(url) as second:
            assert (second.path / "a").read_text() == "1"
            put(first.path, "late", "x")
            put(second.path, "b", "2")
            until(lambda: "b" in there(url))
            assert "late" not in there(url)
            second.finish()
        first.finish()
    assert there(url) == ["a", "b", "manifest.json"]
    manifest.verify(url)


def test_a_damaged_or_incomplete_result_is_made_anew(url, scratch, capsys):
    with work(url) as first:
        put(first.path, "x", "1")
        first.finish()
    storage.remove(f"{url}/x")
    with work(url) as second:
        assert second.finished is None
        assert "x is missing" in capsys.readouterr().err
        assert there(url) == [".work.json"]


def test_a_failure_of_the_network_comes_up_at_the_end_and_the_rerun_only_sends(url, faults, monkeypatch, capsys):
    with pytest.raises(RetryableError), work(url) as first:
        put(first.path, "x", "1")
        until(lambda: "x" in there(url))
        put(first.path, "y", "2")
        monkeypatch.setattr(storage.s3, "ATTEMPTS", 2)
        faults.plan(10**6, ["drop"], rate=1)
        until(lambda: "its files are sent later" in capsys.readouterr().err)
        first.finish()
    faults.plan(0)
    with work(url) as again:
        assert again.finished
    assert there(url) == ["manifest.json", "x", "y"]


def test_a_failure_at_the_beginning_leaves_no_lock(url, monkeypatch):
    def fails(*_):
        raise RetryableError("reset")

    with monkeypatch.context() as patch, pytest.raises(RetryableError):
        patch.setattr(mirror.Mirror, "open", fails)
        with work(url):
            pytest.fail("begun")
    with work(url) as again:
        again.finish()


def test_files_of_others_are_not_removed(url, bucket):
    bucket.put_object(Bucket="pairs", Key=storage.paths.split(url)[1] + "/theirs/a", Body=b"x")
    with pytest.raises(InputError, match=r"not of a stage, theirs/a among them"), work(url):
        pytest.fail("begun")
    assert there(url) == ["theirs/a"]


def test_no_bucket_is_told_before_any_work(url):
    with pytest.raises(InputError, match="NoSuchBucket"), work("s3://nowhere/x"):
        pytest.fail("begun")


def test_what_hidden_files_speak_of_is_sent_with_or_before_them(url):
    """A note is written behind its file; at whatever moment the mirror looks, it must not take the note alone."""
    with work(url) as it:
        looked = it._mirror._files()
        put(it.path, ".progress/a", "of a")
        assert next(looked)[0] == ".progress/a"
        put(it.path, "a", "whole")  # as if both had come while the folder was walked
        assert [name for name, _ in looked] == ["a"]


def test_what_the_stopped_writer_still_sends_while_it_is_taken_over_is_taken_as_it_is(url, scratch, monkeypatch):
    """Timings differ between two writers of the same work; what is listed may be replaced before it is fetched."""
    lost_machine(
        url, scratch, {"volatile/speed.csv": "1", ".checkpoint/3": "c"}, ["volatile/speed.csv", ".checkpoint/3"]
    )
    listed = mirror.entries

    def entries(at):
        found = listed(at)
        if at == url and "volatile/speed.csv" in found and not late:
            late.append(storage.write_bytes(f"{url}/volatile/speed.csv", b"1, and more"))
        return found

    late = []
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "entries", entries)
        with work(url) as begun:
            assert late
            assert (begun.path / "volatile/speed.csv").read_text() == "1, and more"
            assert (begun.path / ".checkpoint/3").read_text() == "c"
            put(begun.path, "student", "s")
            begun.finish()
    assert storage.read_bytes(f"{url}/volatile/speed.csv") == b"1, and more"
