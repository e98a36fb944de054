"""Files of timings: read where they are intact, left out with a line that names them where they are not."""

import json
import os

import pytest

from cliprd.report.timings import intact

SPEED = {
    "device": "a CPU",
    "threads": 2,
    "precision": "fp32",
    "image": {"latency_ms": {"median": 1.5, "p95": 2.0, "runs": 3}, "per_second": 20.0, "batch_size": 4},
    "text": {"latency_ms": {"median": 1, "p95": 2.0, "runs": 3}, "per_second": 30, "batch_size": 4},
}
THROUGHPUT = "step,images_per_second,data_wait\n2,10.5,0.25\n4,1e3,0\n"


def without(*path):
    tree = json.loads(json.dumps(SPEED))
    *above, last = path
    node = tree
    for key in above:
        node = node[key]
    del node[last]
    return json.dumps(tree)


def altered(value, *path):
    tree = json.loads(json.dumps(SPEED))
    *above, last = path
    node = tree
    for key in above:
        node = node[key]
    node[last] = value
    return json.dumps(tree)


MEDIAN, RATE = ("image", "latency_ms", "median"), ("text", "per_second")
DAMAGED_SPEED = [
    "", "{", "[]", "null", "3", '"x"', json.dumps(SPEED)[:-9], json.dumps(SPEED) * 2, "\0" * 50, b"\x89PNG\xff\xfe",
    *(without(*path) for path in (("device",), ("threads",), ("precision",), ("image",), ("text",), MEDIAN, RATE)),
    *(altered(value, *path) for path in (MEDIAN, RATE)
      for value in (0, -1, 1e13, float("nan"), float("inf"), "1.5", None, True, [], {}, 10**400)),
    altered("1e999", *RATE), altered(None, "image"), altered([], "text"), altered("x" * 400, "device"),
    altered("a\x1b[31m", "device"), altered(3, "device"), altered(0, "threads"), altered(2.5, "threads"),
    altered("2", "threads"),
]  # fmt: skip
HEAD = "step,images_per_second,data_wait\n"
DAMAGED_THROUGHPUT = [
    "", HEAD[:-1], HEAD + "2,10", HEAD + "2,10\n", HEAD + "2,10,0.1,5\n", HEAD + "x,10,0.1\n", HEAD + "2,nan,0.1\n",
    HEAD + "2,inf,0.1\n", HEAD + "2,-1,0.1\n", HEAD + "2,10,2\n", HEAD + "2,10,\n", HEAD + "2,1e99,0\n",
    HEAD + "\n2,1,0\n", "a,b\n1,2\n",
    HEAD + "2,ten,0.1\n", HEAD + '2,"10,0.1\n', "\0" * 50 + "\n", b"\xff\xfe\n", "{}\n",
    HEAD + "-2,10,0.1\n",
]  # fmt: skip


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(("name", "content"), [("speed.json", json.dumps(SPEED)), ("throughput.csv", THROUGHPUT)])
def test_intact_files_are_read_without_warnings(tmp_path, name, content, capfd):
    assert intact(tmp_path / name) is None
    write(tmp_path / name, content)
    assert intact(tmp_path / name) == tmp_path / name
    write(tmp_path / "throughput.csv", HEAD)  # too short for a record
    assert intact(tmp_path / "throughput.csv")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [*(("speed.json", c) for c in DAMAGED_SPEED), *(("throughput.csv", c) for c in DAMAGED_THROUGHPUT)],
)
def test_damaged_files_are_reported_once_and_left_out(tmp_path, name, content, capfd):
    write(tmp_path / name, content)
    assert intact(tmp_path / name) is None
    assert intact(tmp_path / name) is None
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"cliprd: warning: {tmp_path / name} is damaged (")
    assert line.isprintable()


@pytest.mark.parametrize("name", ["speed.json", "throughput.csv"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "dangling", "huge"])
def test_a_path_that_is_no_file_is_reported_and_left_out(tmp_path, name, kind, capfd):
    path = tmp_path / name
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
        case "dangling":
            path.symlink_to(tmp_path / "none")
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 40)
    assert intact(path) is None
    assert str(path) in capfd.readouterr().err
