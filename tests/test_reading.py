"""What is no regular file or no JSON ends at once, with its name."""

import os
import socket

import pytest

from cliprd.reading import open_regular, parse_json, read_json


def make(path, kind):
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            socket.socket(socket.AF_UNIX).bind(str(path))
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "pipe behind a link":
            os.mkfifo(path.with_name("pipe"))
            path.symlink_to("pipe")


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "loop", "pipe behind a link", "nothing"])
def test_special_files_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's address is short
    path = tmp_path / "x"
    make(path.relative_to(tmp_path), kind)
    for read in (open_regular, read_json):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - any of its kinds
            read(path)
        assert caught.value.filename in (path, str(path))


@pytest.mark.parametrize("data", ["", "{", "[" * 100_000, '{"a":' * 100_000, b"\xff", "1" * 5_000])
def test_invalid_json_is_a_value_error(data):
    with pytest.raises(ValueError):  # noqa: PT011 - any of its kinds
        parse_json(data)
