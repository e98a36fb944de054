"""An output folder in S3: committed file by file, taken over by another machine, finished manifest last."""

import functools
import shutil
import time

import pytest

from cliprd import storage
from cliprd.artifact import manifest, mirror
from cliprd.artifact.workspace import Workspace
from cliprd.errors import InputError, MachineError, RetryableError
from cliprd.files import atomic_write
from tests.artifact.test_folder import tree

pytestmark = pytest.mark.integration


@pytest.fixture
def url(bucket, request):
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
        begun.commit(*files)
        until(lambda: set(seen) <= set(there(url)))
        patch.setattr(mirror.Mirror, "_deliver", lambda *_: None)  # nothing more is sent
        raise Lost
    shutil.rmtree(scratch)


def test_finished_work_is_whole_there_and_nothing_stays_here(url, scratch):
    with work(url) as first:
        assert first.finished is None
        put(first.path, "x", "1")
        put(first.path, "volatile/t", "2")
        put(first.path, ".checkpoint/1", "3")
        (first.path / ".x.abc.tmp").write_text("half")
        first.commit("x", ".checkpoint")
        until(lambda: ".checkpoint/1" in there(url))
        assert there(url) == [".checkpoint/1", ".work.json", "x"]
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
        killed.commit("a")
        until(lambda: "a" in there(url))
        patch.setattr(mirror.Mirror, "_deliver", lambda *_: None)
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
        first.commit("log")
        until(lambda: "log" in there(url))
        patch.setattr(mirror.Mirror, "_deliver", lambda *_: None)
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
    with pytest.raises(MachineError, match="another cliprd process, which began after"), work(url) as first:
        put(first.path, "a", "1")
        first.commit("a")
        until(lambda: "a" in there(url))
        monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "second"))
        with work(url) as second:
            assert (second.path / "a").read_text() == "1"
            put(first.path, "late", "x")
            first.commit("late")
            put(second.path, "b", "2")
            second.commit("b")
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
        first.commit("x")
        until(lambda: "x" in there(url))
        put(first.path, "y", "2")
        monkeypatch.setattr(storage.s3, "ATTEMPTS", 2)
        faults.plan(10**6, ["drop"], rate=1)
        first.commit("y")
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


def test_what_hidden_files_speak_of_is_sent_before_them(url, monkeypatch):
    """As they are committed; and where what is here is sent as a whole."""
    sent, real = [], mirror.upload
    monkeypatch.setattr(mirror, "upload", lambda path, to: (sent.append(path.name), real(path, to))[1])
    with work(url) as it:
        sent.clear()
        for name in (".progress/1", "b", "a"):
            put(it.path, name, "x")
        it.commit("b", "a", ".progress/1")
        until(lambda: ".progress/1" in there(url))
        assert sent == ["b", "a", "1"]
        for name in (".progress/2", "d", "c"):
            put(it.path, name, "y")
        it.commit(".")
        until(lambda: ".progress/2" in there(url))
        assert sent[3:] == ["d", "c", "2"]
        it.commit("a", "b", ".progress")
        it.finish()
    assert sent[6:] == ["code.json", "manifest.json"]  # nothing twice


def test_one_that_was_taken_over_hears_of_it_at_its_next_commit(url, scratch, tmp_path, monkeypatch):
    with pytest.raises(MachineError, match="another cliprd process, which began after"), work(url) as first:
        monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "second"))
        with work(url):
            for number in range(500):
                put(first.path, "a", str(number))
                first.commit("a")
                time.sleep(0.02)


def checkpointed(url, scratch, **changes):
    """Begins a training, commits a checkpoint, and is gone with its disk; what it printed is its caller's."""
    with pytest.raises(Lost), training(url, **changes) as begun:
        assert not begun.resumed
        put(begun.path, "history", str(changes))
        put(begun.path, ".checkpoint/1", str(changes))
        begun.commit("history", ".checkpoint")
        until(lambda: ".checkpoint/1" in there(url))
        raise Lost
    shutil.rmtree(scratch)


def training(url, **changes):
    return work(url, stage="distill", resume_files=[".checkpoint"], **changes)


def test_an_unfinished_training_is_set_aside_until_the_first_checkpoint_of_another(url, scratch, capsys):
    checkpointed(url, scratch)
    capsys.readouterr()
    with pytest.raises(Lost), training(url, params={"views": 2}) as other:
        assert not other.resumed
        assert list(other.path.glob("[!.]*")) == []
        assert there(url) == [".aside/.checkpoint/1", ".aside/.work.json", ".aside/history", ".work.json"]
        line = capsys.readouterr().err
        assert f"cliprd: {url}: parameter views has changed: the work is restarted" in line
        raise Lost
    with pytest.raises(Lost), training(url) as again:  # the change is taken back
        assert again.resumed
        assert (again.path / ".checkpoint/1").read_text() == "{}"
        assert there(url) == [".checkpoint/1", ".work.json", "history"]
        raise Lost
    checkpointed(url, scratch, params={"views": 2})
    assert there(url) == [".checkpoint/1", ".work.json", "history"]  # the new work's


@pytest.mark.parametrize("change", ["away", "back"])
def test_a_kill_while_a_training_is_set_aside_or_restored_loses_nothing(url, scratch, monkeypatch, change):
    """Killed before each request that changes something, the same command and then the first one again come through."""
    checkpointed(url, scratch)
    if change == "back":
        with pytest.raises(Lost), training(url, params={"views": 2}):
            raise Lost
    calls = {name: getattr(mirror, name) for name in ("copy", "remove", "upload")}
    for point in range(20):
        left = iter(range(point))

        def dying(*arguments, name, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return calls[name](*arguments)

        with monkeypatch.context() as patch:
            for name in calls:
                patch.setattr(mirror, name, functools.partial(dying, name=name))
            try:
                with training(url, **({"params": {"views": 2}} if change == "away" else {})):
                    patch.undo()
                    raise Lost
            except KeyboardInterrupt:
                shutil.rmtree(scratch)
            except Lost:
                break
    assert 5 < point < 20
    with training(url) as again:
        assert again.resumed
        assert (again.path / ".checkpoint/1").read_text() == "{}"
        assert (again.path / "history").read_text() == "{}"


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
