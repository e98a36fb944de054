"""docs/library.md: all that stands there runs, on small real data."""

import importlib
import re
import runpy

import pytest

from tests.benchmark.tools import classification
from tests.distill import rooms
from tests.integration.pipeline import ROOT

BLOCK = re.compile(r"^```(\w+)\n(?:# (\S+\.(?:py|toml))\n)?(.*?)^```", re.DOTALL | re.MULTILINE)
PACKAGE = "acme_clip/"


def blocks():
    """(language, file it is to be in or "", text) of each block, in order."""
    return [match.groups("") for match in BLOCK.finditer((ROOT / "docs/library.md").read_text(encoding="utf-8"))]


@pytest.fixture
def registered(monkeypatch):
    from cliprd import plugins

    for registry in (plugins.terms, plugins.teachers):
        monkeypatch.setattr(registry, "_registered", {})


def test_all_examples_run_in_order(tmp_path, monkeypatch, capsys, registered):
    (tmp_path / "work").mkdir()
    rooms.build(tmp_path / "work")
    classification(tmp_path / "work/tasks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = 0
    for number, (language, file, text) in enumerate(blocks()):
        if language != "python" or file.startswith(PACKAGE):  # the package: test_package.py
            continue
        path = tmp_path / (file or f"block_{number}.py")
        path.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        runpy.run_path(str(path), run_name=path.stem)
        ran += 1
    output = capsys.readouterr().out
    assert ran == 8
    assert "teacher's choice" in output
    assert "'neighbours'" in output
    assert (tmp_path / "work/students/mine/history.csv").read_text().splitlines()[0].count("neighbours") == 1
