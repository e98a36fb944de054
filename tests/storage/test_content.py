"""Content is told by what it is, and unchanged files are not read again."""

import os
import sqlite3
import threading

import pytest

from cliprd import storage
from cliprd.errors import InputError, RetryableError
from cliprd.storage import content
from cliprd.storage.content import fingerprints


@pytest.fixture
def reads(scratch, monkeypatch):
    """Paths that were read, in order; files are believed as soon as they are written."""
    monkeypatch.setattr(content, "SETTLED", -1.0)
    seen = []
    hashed = content._hashed
    monkeypatch.setattr(content, "_hashed", lambda path: seen.append(os.path.basename(path)) or hashed(path))
    return seen


def test_each_file_is_read_once(tmp_path, reads):
    places = [str(tmp_path / name) for name in "abc"]
    for place in places:
        with open(place, "w") as file:
            file.write(place)
    first = fingerprints([*places, places[0]])
    assert list(first) == places
    assert len(set(first.values())) == 3
    assert (fingerprints(places), reads) == (first, ["a", "b", "c"])


def replaced(path):
    path.with_name("new").write_bytes(b"BBBB")
    os.replace(path.with_name("new"), path)


def restored(path):
    state = path.stat()
    path.write_bytes(b"BBBB")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def linked_elsewhere(path):
    path.with_name("other").write_bytes(b"BBBB")
    path.unlink()
    path.symlink_to(path.with_name("other"))


CHANGES = {
    "another size": (lambda path: path.write_bytes(b"AAAAA"), True),
    "the same size": (lambda path: path.write_bytes(b"BBBB"), True),
    "the same size and mtime": (restored, True),
    "another file under the name": (replaced, True),
    "a link to another file": (linked_elsewhere, True),
    "touched": (lambda path: os.utime(path), False),
    "the same bytes": (lambda path: path.write_bytes(b"AAAA"), False),
    "permissions": (lambda path: path.chmod(0o600), False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_bytes_are_seen_and_others_are_not(tmp_path, reads, change):
    path = tmp_path / "a"
    path.write_bytes(b"AAAA")
    before = fingerprints([str(path)])
    act, changes = CHANGES[change]
    act(path)
    assert (fingerprints([str(path)]) != before) is changes
    assert reads == ["a", "a"]


def test_what_was_written_a_moment_ago_is_not_believed_by_its_times(tmp_path, reads, monkeypatch):
    """Two changes within one tick of the file system's clock have the same times."""
    monkeypatch.setattr(content, "SETTLED", 60.0)
    (tmp_path / "a").write_bytes(b"A")
    for _ in range(2):
        fingerprints([str(tmp_path / "a")])
    assert reads == ["a", "a"]


def test_a_file_that_is_written_meanwhile_is_refused_for_now(tmp_path, scratch):
    path = tmp_path / "a"
    path.write_bytes(b"A" * (64 << 20))
    done = threading.Event()

    def append():
        while not done.is_set():
            with path.open("ab") as file:
                file.write(b"x")

    writer = threading.Thread(target=append)
    writer.start()
    try:
        with pytest.raises(RetryableError, match="is being written"):
            fingerprints([str(path)])
    finally:
        done.set()
        writer.join()


@pytest.mark.parametrize("absent", [False, True])
def test_what_is_missing(tmp_path, scratch, absent):
    (tmp_path / "folder").mkdir()
    for name in ("nothing", "folder", "x" * 300, "a\0b"):
        place = f"{tmp_path}/{name}"
        if absent:
            assert fingerprints([place], absent=True) == {}
        else:
            with pytest.raises(InputError, match="does not exist, or is not a file"):
                fingerprints([place])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_named(tmp_path, scratch):
    (tmp_path / "a").write_bytes(b"A")
    (tmp_path / "a").chmod(0)
    with pytest.raises(InputError, match=r"/a cannot be read: Permission denied"):
        fingerprints([str(tmp_path / "a")])


def test_a_damaged_memory_is_removed_and_costs_time_only(tmp_path, reads, scratch, capsys):
    (tmp_path / "a").write_bytes(b"A")
    first = fingerprints([str(tmp_path / "a")])
    (scratch / "fingerprints/files.sqlite").write_bytes(b"no table" * 1000)
    assert fingerprints([str(tmp_path / "a")]) == first
    assert "sha256 of files are not remembered: file is not a database" in capsys.readouterr().err
    for _ in range(2):
        assert fingerprints([str(tmp_path / "a")]) == first
    assert reads == ["a", "a", "a"]
    assert capsys.readouterr().err == ""


def test_without_a_place_for_the_memory(tmp_path, reads, monkeypatch, capsys):
    (tmp_path / "a").write_bytes(b"A")
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "a"))
    assert len(fingerprints([str(tmp_path / "a")])) == 1
    assert "sha256 of files are not remembered" in capsys.readouterr().err


def test_what_nobody_asks_for_is_forgotten(tmp_path, reads, scratch):
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(b"A")
    fingerprints([str(tmp_path / name) for name in ("old", "new")])
    with sqlite3.connect(scratch / "fingerprints/files.sqlite") as table:
        table.execute("UPDATE files SET used = used - ?", (content.KEPT + 1,))
    fingerprints([str(tmp_path / "new")])
    assert reads == ["old", "new"]
    with sqlite3.connect(scratch / "fingerprints/files.sqlite") as table:
        assert table.execute("SELECT count(*) FROM files").fetchall() == [(1,)]


@pytest.mark.integration
def test_objects_are_told_by_their_store(bucket, tmp_path):
    (tmp_path / "a").write_bytes(b"A")
    for key, body in (("f/a", b"1"), ("f/b", b"2"), ("g/deep/c", b"3")):
        bucket.put_object(Bucket="pairs", Key=f"fp/{key}", Body=body)
    places = ["s3://pairs/fp/f/a", "s3://pairs/fp/f/b", str(tmp_path / "a"), "s3://pairs/fp/g/deep/c"]
    before = fingerprints(places)
    assert list(before) == places
    assert before == {place: fingerprints([place])[place] for place in places}  # listed or asked for alone
    bucket.put_object(Bucket="pairs", Key="fp/f/b", Body=b"9")
    after = fingerprints(places)
    assert [place for place in places if after[place] != before[place]] == ["s3://pairs/fp/f/b"]
    missing = ["s3://pairs/fp/f/none", "s3://pairs/fp/h/none"]
    assert fingerprints([*places, *missing], absent=True) == after
    for place in missing:
        with pytest.raises(storage.Missing):
            fingerprints([*places, place])
