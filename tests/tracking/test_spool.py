"""A spool that was damaged on the disk loses its damaged lines, with a word, and nothing else."""

import json

import pytest

from cliprd.tracking import runs, spool

GOOD = [{"step": 1, "metrics": {"a": 1.0}}, {"step": 2, "metrics": {"a": 2.0}}]


@pytest.mark.parametrize("bad", [b"\0\0\0", b"{", b"[]", b"3", b'{"step": "x"}', b"\xff\xfe", b"[" * 5000])
def test_damaged_lines_are_left_out(tmp_path, bad, capsys):
    path = tmp_path / "mlflow.jsonl"
    lines = [json.dumps(GOOD[0]).encode(), bad, json.dumps(GOOD[1]).encode()]
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert list(spool.entries(path)) == GOOD
    assert str(path) in capsys.readouterr().err
    opened = spool.Spool(path)
    assert opened.last_step == 2
    opened.append({"step": 3})
    found, end = opened.read(10)
    assert found == [*GOOD, {"step": 3}]
    opened.acknowledge(end)
    opened.close(remove=True)
    assert not path.exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", "{}", '{"training": []}', '{"training": {"datasets": 3}}', None]
)
def test_a_damaged_note_is_named(tmp_path, content, capsys):
    path = tmp_path / "mlflow.json"
    path.mkdir() if content is None else path.write_text(content)
    assert runs._Note.read(path) is None
    assert str(path) in capsys.readouterr().err
    assert runs._Note.read(tmp_path / "none") is None
    assert capsys.readouterr().err == ""
