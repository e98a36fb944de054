"""SIGKILL at any boundary of a job's file operations or requests: the next run sweeps what it leaves, and nothing else.

A process is killed before it opens, moves, makes or removes a file, or sends a request; `kills` has the mechanism.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cliprd import storage
from cliprd.storage import s3, transfer, writers
from tests import s3_server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]


def attempts(job, folder, most, environment=None):
    folder.mkdir(exist_ok=True)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.integration.kills", job, str(folder), str(most)],
        env={**os.environ, **(environment or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    (folder / "kills").mkdir()
    with s3_server.running(folder) as environment:
        yield environment


@pytest.mark.parametrize(
    ("job", "leaves"),
    [
        ("prepare", {".tmp", ".progress", ".work.json"}),
        ("cache", {".tmp", ".work.json"}),
        ("distill", {".tmp", ".checkpoint", ".work.json"}),
        ("promote", {".tmp"}),
    ],
)
def test_a_killed_job_leaves_nothing_behind_the_next_run(tmp_path, job, leaves):
    found = attempts(job, tmp_path, 10)
    assert found["faults"] == []
    assert found["killed"] >= 10
    assert leaves <= set(found["left"])  # else the kills came where nothing is left


@pytest.mark.parametrize(("job", "leaves"), [("workspace-s3", {"upload", ".work.json"}), ("promote-s3", {"upload"})])
def test_a_job_that_was_killed_while_it_sent_leaves_nothing_in_s3(server, tmp_path, job, leaves):
    found = attempts(job, tmp_path, 8, server)
    assert found["faults"] == []
    assert found["killed"] >= 8
    assert leaves <= set(found["left"])


@pytest.fixture
def place(server, tmp_path, monkeypatch):
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    s3.client.cache_clear()
    yield f"s3://kills/{tmp_path.name}"
    s3.client.cache_clear()


def begin(place):
    bucket, key = transfer.split(f"{place}/model")
    begun = s3.client().create_multipart_upload(Bucket=bucket, Key=key)
    s3.client().upload_part(Bucket=bucket, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x")
    return begun["UploadId"]


def uploads(place):
    bucket, key = transfer.split(place)
    return {item["UploadId"] for item in transfer._uploads(bucket, key, place)}


HOLDER = """
import sys
from cliprd.storage.writers import writing
with writing(sys.argv[1]):
    print('in', flush=True)
    sys.stdin.readline()
"""


def holder(place):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "in\n"
    return process


def test_uploads_of_a_live_writer_stay(place):
    """Of another process that lives they stay, those from before it began go, and all go once it was killed."""
    dead = begin(place)
    time.sleep(1.1)
    live = holder(place)
    try:
        mine = begin(place)
        assert uploads(place) == {mine}
        time.sleep(1.1)
        for _ in range(2):
            with writers.writing(place):
                assert uploads(place) == {mine}
        assert dead not in uploads(place)
    finally:
        live.kill()
        live.communicate()
    time.sleep(1.1)
    with writers.writing(place):
        assert uploads(place) == set()
    assert storage.list_folder(place) == {}


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"machine": "another", "pid": 1, "started": "1"}'])
def test_a_writer_that_cannot_be_asked_counts_as_live_for_a_day(place, note, monkeypatch):
    storage.write_bytes(f"{place}/{writers.NOTES}/other.json", note)
    time.sleep(1.1)
    theirs = begin(place)
    time.sleep(1.1)
    with writers.writing(place):
        assert uploads(place) == {theirs}
    monkeypatch.setattr(writers, "SILENT", writers.timedelta(seconds=1))
    with writers.writing(place):
        assert uploads(place) == set()


def test_threads_of_one_process_are_live_writers_too(place):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with writers.writing(place):
            begin(place)
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(60)
    time.sleep(1.1)
    with writers.writing(place):
        assert len(uploads(place)) == 1
    leave.set()
    thread.join()
