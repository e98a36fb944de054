"""The life of an output folder: begin, be killed, go on, finish, refuse."""

import errno
import fcntl
import os
import re
import subprocess
import sys

import pytest

from cliprd import files
from cliprd.artifact import manifest
from cliprd.artifact.workspace import Workspace
from cliprd.errors import CliprdError, InputError, MachineError


def work(path, **changes):
    return Workspace(path, **{"stage": "cache", "params": {"views": 1}, "inputs": {"shards": "aa"}, **changes})


def test_finished_work_is_not_done_again(tmp_path):
    with work(tmp_path / "out") as first:
        assert first.finished is None
        (first.path / "x").write_text("1")
        done = first.finish(facts={"n": 1})
    assert sorted(os.listdir(tmp_path / "out")) == ["manifest.json", "volatile", "x"]
    with work(tmp_path / "out") as second:
        assert second.finished == done


@pytest.mark.parametrize("change", [{"params": {"views": 2}}, {"inputs": {"shards": "bb"}}, {"stage": "distill"}])
def test_other_work_starts_from_an_empty_folder(tmp_path, change):
    with work(tmp_path) as first:
        (first.path / "x").write_text("1")
        first.finish()
    with work(tmp_path, **change) as second:
        assert second.finished is None
        assert not second.resumed
        assert not (tmp_path / "x").exists()


def test_leftovers_of_the_same_work_stay_and_of_other_work_go(tmp_path):
    with work(tmp_path) as killed:
        (killed.path / "part").write_text("whole")
    with work(tmp_path) as again:
        assert again.resumed
        assert (tmp_path / "part").exists()
    with work(tmp_path, params={"views": 3}) as other:
        assert not other.resumed
        assert not (tmp_path / "part").exists()


def test_damaged_output_is_named_and_made_anew(tmp_path, capsys):
    with work(tmp_path) as first:
        (first.path / "x").write_text("1")
        first.finish()
    (tmp_path / "x").write_text("2")
    with work(tmp_path) as second:
        assert second.finished is None
        assert not (tmp_path / "x").exists()
    assert str(tmp_path / "x") in capsys.readouterr().err


def test_output_of_older_code_is_made_anew(tmp_path, monkeypatch):
    with work(tmp_path) as first:
        first.finish()
    monkeypatch.setattr("cliprd.artifact.identity.digest", lambda module: "other")
    with work(tmp_path) as second:
        assert second.finished is None


def test_an_edit_of_code_that_changes_no_byte_leaves_the_manifest_as_it_was(tmp_path, monkeypatch):
    def made():
        with work(tmp_path) as it:
            assert it.finished is None
            (tmp_path / "x").write_text("1")
            return it.finish(), (tmp_path / "manifest.json").read_bytes()

    before, data = made()
    monkeypatch.setattr("cliprd.artifact.identity.digest", lambda module: "other")
    after, same = made()
    assert (before.code == after.code, after.code) == (False, "other")
    assert (before.fingerprint, data) == (after.fingerprint, same)


def test_a_folder_of_an_older_version_has_its_code_in_the_manifest(tmp_path):
    with work(tmp_path) as first:
        done = first.finish()
    body = {**done.body(), "code": done.code}
    files.write_json(tmp_path / "manifest.json", {**body, "digest": files.digest(body)})
    (tmp_path / manifest.CODE).unlink()
    assert manifest.verify(tmp_path) == done
    assert manifest.read(tmp_path).fingerprint == done.fingerprint
    with work(tmp_path) as again:
        assert again.finished == done


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}"])
def test_work_of_unknown_code_is_not_believed_but_can_be_read(tmp_path, content):
    with work(tmp_path) as first:
        done = first.finish()
    (tmp_path / manifest.CODE).unlink() if content is None else (tmp_path / manifest.CODE).write_bytes(content)
    assert manifest.verify(tmp_path).fingerprint == done.fingerprint
    with work(tmp_path) as again:
        assert again.finished is None


def test_temporary_files_of_a_killed_writer_are_no_part_of_the_output(tmp_path):
    with work(tmp_path) as it:
        (tmp_path / ".x.abc.tmp").write_text("half")
        it.finish()
    assert sorted(os.listdir(tmp_path)) == ["manifest.json", "volatile"]


def test_two_writers_of_one_folder_cannot_mix(tmp_path):
    code = (
        "from pathlib import Path; import sys; from cliprd.artifact.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1]), stage='s', params={}, inputs={}): print('in', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "in\n"
        with pytest.raises(MachineError, match="another cliprd process"), work(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with work(tmp_path) as free:  # a killed holder's lock is gone with it
        assert free.finished is None


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MachineError, match="is a file where a folder is needed"), work(tmp_path / "file"):
        pass


def test_full_disk_and_read_only_are_one_clear_line(tmp_path):
    for code, words in [(errno.ENOSPC, "No space left"), (errno.EACCES, "cannot be written")]:
        with pytest.raises(MachineError, match=words), work(tmp_path):
            raise OSError(code, os.strerror(code), str(tmp_path / "x"))
    with pytest.raises(OSError, match="strange"), work(tmp_path):
        raise OSError("strange")


@pytest.mark.parametrize("name", ["EIO", "EFBIG", "ENAMETOOLONG", "ELOOP", "EDQUOT", "EISDIR", "EMFILE", "ESTALE"])
@pytest.mark.parametrize("file", [True, False])
def test_whatever_the_system_refuses_names_a_place(tmp_path, name, file):
    number = getattr(errno, name)
    with pytest.raises(CliprdError) as caught, work(tmp_path):
        raise OSError(number, os.strerror(number), *([str(tmp_path / "x")] if file else []))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [".lock", "manifest.json"])
def test_a_folder_where_a_file_of_ours_should_be(tmp_path, name):
    (tmp_path / name / "x").mkdir(parents=True)
    with pytest.raises(CliprdError, match=re.escape(name)), work(tmp_path) as it:
        it.finish()


CONTENDER = """
import fcntl, os, random, sys, time
from pathlib import Path
from cliprd.errors import MachineError
from cliprd.artifact.workspace import Workspace
room, inside, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
flock = fcntl.flock
def late(lock, operation):  # the moment between opening and locking, made long enough to be met
    time.sleep(random.uniform(0, 0.002))
    flock(lock, operation)
fcntl.flock = late
entered = 0
while entered < rounds:
    try:
        with Workspace(room, stage="s", params={}, inputs={}):
            try:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                sys.exit("another one is in here")
            time.sleep(0.001)
            os.unlink(inside)
            entered += 1
    except MachineError:
        pass
"""


def test_the_lock_of_a_file_that_was_removed_counts_for_nothing(tmp_path, monkeypatch):
    flock, calls = fcntl.flock, []

    def late(lock, operation):
        if not calls:
            (tmp_path / ".lock").unlink()  # its holder has just ended
        calls.append(operation)
        flock(lock, operation)

    monkeypatch.setattr("cliprd.files.fcntl.flock", late)
    with work(tmp_path):
        third = os.open(tmp_path / ".lock", os.O_CREAT | os.O_RDWR)
        with pytest.raises(BlockingIOError):
            flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(third)


def test_one_at_a_time_although_locks_come_and_go(tmp_path):
    """Each release removes the lock's file, which others have opened by then."""
    room, inside = tmp_path / "room", tmp_path / "inside"
    contenders = [
        subprocess.Popen([sys.executable, "-c", CONTENDER, str(room), str(inside), "60"], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    errors = [one.communicate(timeout=300)[1].decode() for one in contenders]
    assert [one.returncode for one in contenders] == [0, 0, 0, 0], errors
    assert not (room / ".lock").exists()


def test_files_of_others_are_not_removed(tmp_path):
    """As `--output .` would."""
    (tmp_path / "precious").write_text("x")
    with pytest.raises(InputError, match=r"not of a stage, precious among them"), work(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["precious"]


def test_what_a_kill_while_clearing_leaves_is_cleared_further(tmp_path, monkeypatch):
    with work(tmp_path) as first:
        (first.path / "x").write_text("1")
        (first.path / "y").write_text("1")
        first.finish()
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", dying(2))
        with pytest.raises(KeyboardInterrupt), work(tmp_path, params={"views": 2}):
            pass
    assert not (tmp_path / "manifest.json").exists()
    with work(tmp_path, params={"views": 2}) as again:
        assert not again.resumed
        assert not {"x", "y"} & set(os.listdir(tmp_path))


def dying(count):
    from pathlib import Path

    unlink, calls = Path.unlink, []

    def dies(path, **options):
        if path.name in ("x", "y"):
            calls.append(path)
            if len(calls) == count:
                raise KeyboardInterrupt
        unlink(path, **options)

    return dies


def test_what_a_kill_behind_the_manifest_leaves_goes_with_the_next_run(tmp_path):
    out = tmp_path / "out"
    with work(out, resume_files=[".progress"]) as first:
        (first.path / "x").write_text("1")
        done = first.finish()
    (out / ".progress").mkdir()
    (out / ".progress/note.json").write_text("{}")
    (out / ".work.json").write_text("{}")
    (out / ".x.abc.tmp").write_text("half")
    with work(out, resume_files=[".progress"]) as second:
        assert second.finished == done
    assert sorted(os.listdir(out)) == ["manifest.json", "volatile", "x"]
