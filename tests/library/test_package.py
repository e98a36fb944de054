"""The package of docs/library.md, installed beside cliprd: teacher, cache and distill know it by its entry points."""

import csv
import json
import os
import subprocess
import sys

import pytest
import yaml

from cliprd.artifact import manifest
from cliprd.stages import prepare
from tests.distill import rooms
from tests.library.test_docs import PACKAGE, blocks


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder into which it is installed."""
    folder = tmp_path_factory.mktemp("package")
    for _, file, text in blocks():
        if file.startswith(PACKAGE) or file == "pyproject.toml":
            path = folder / "source" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    (folder / "source" / PACKAGE / "__init__.py").touch()
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", folder / "source"]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    rooms.draw(folder / "pictures")
    tree = rooms.make_params(folder, method="clip_kd", epochs=1, log_every=1, processes=2)
    prepare.run(tree, {}, folder / "shards")
    changed = tree.model_dump(mode="json", exclude={"kubernetes"})
    changed["teacher"] = {"name": "palette", "settings": {"grid": 3}}
    changed["distill"]["weights"]["extra"] = {"neighbours": 10.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    return folder


def cliprd(work, site, *words):
    path = [*([str(site)] if site else []), os.environ["PYTHONPATH"]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-m", "cliprd", *words]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)


def test_its_teacher_is_trained_cached_and_distilled_with_its_term_on_two_processes(site, work):
    for words in (
        ["teacher", "--shards", "shards", "--output", "teacher"],
        ["cache", "--shards", "shards", "--teacher", "teacher", "--output", "cache"],
        ["distill", "--shards", "shards", "--cache", "cache", "--output", "student"],
        ["plan", "--samples", "48"],
    ):
        ran = cliprd(work, site, *words)
        assert ran.returncode == 0, ran.stderr
    assert "embeddings of 27" in ran.stdout
    assert "neighbours 10" in ran.stdout
    teacher, cached = manifest.verify(work / "teacher"), manifest.verify(work / "cache")
    assert teacher.params == {"teacher": {"name": "palette", "settings": {"grid": 3}}}
    assert (teacher.facts["id"], teacher.facts["dim"]) == ("palette:3", 27)
    assert teacher.facts["training"] == {"pairs": 48}
    assert "palette.safetensors" in teacher.files
    assert cached.facts["made_with"]["params"] == teacher.params
    rows = list(csv.DictReader((work / "student/history.csv").open()))
    assert float(rows[0]["neighbours"]) > 0
    lineage = json.loads((work / "student/lineage.json").read_text())
    assert lineage["params"]["distill"]["weights"]["extra"] == {"neighbours": 10.0}


def test_an_edit_of_its_code_is_another_teacher_and_another_training(site, work):
    """Of a module that only another module of the package imports; a comment changes nothing."""

    def codes():
        code = (
            "import json\nfrom pathlib import Path\nfrom cliprd import params\nfrom cliprd.lineage import inputs\n"
            "print(json.dumps(inputs._code(params.load(Path('params.yaml')))))"
        )
        environment = {**os.environ, "PYTHONPATH": str(site)}
        ran = subprocess.run([sys.executable, "-c", code], cwd=work, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def changed(file, edit):
        path = site / PACKAGE / file
        path.write_text(path.read_text() + edit)
        before, known["now"] = known["now"], codes()
        return {stage for stage, tree in known["now"].items() if tree != before[stage]}

    known = {"now": codes()}
    assert changed("distance.py", "\n# a comment\n") == set()
    assert changed("distance.py", "\nADDED = 1\n") == {"code/distill"}
    assert changed("palette.py", "\nADDED = 1\n") == {"code/teacher", "code/cache", "code/benchmark"}


def test_without_the_package_both_are_refused_by_name(work):
    ran = cliprd(work, None, "teacher", "--shards", "shards", "--output", "other")
    assert ran.returncode == 2
    assert "No teacher is called 'palette'; registered: aligned" in ran.stderr
    ran = cliprd(
        work,
        None,
        "distill",
        "--shards",
        "shards",
        "--cache",
        "cache",
        "--output",
        "other",
        "--set",
        "teacher.name=aligned",
    )
    assert ran.returncode == 2
    assert "No loss term is called 'neighbours'; registered: none" in ran.stderr
