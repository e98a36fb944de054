"""`cliprd init`: its templates are this repository's own files, and nothing of a user's is overwritten."""

import os
from pathlib import Path

import pytest
import yaml

from cliprd import cli, project
from cliprd.params import load

ROOT = Path(__file__).parents[2]
SHARED = [name for name in project.FILES if name not in ("README.md", "requirements.txt")]
DEMO = {
    **project.VALUES,
    "profile": "This is the demo profile: real images in data/demo, a real teacher from packages, minutes on a laptop. "
    "See configs/paper.yaml.",
    "schema": "docs/params.schema.json",
    "data": "data/demo/train",
    "samples_per_shard": "1000",
    "teacher": "aligned          ",
    "student": """config:                  # an open_clip model config; or name one with `arch`
    embed_dim: 256         # the teacher's width: no projection needed
    vision_cfg: {image_size: 48, layers: [1, 1, 1, 1], width: 16}   # a small CLIP ResNet: learns from few images
    text_cfg: {context_length: 20, vocab_size: 49408, layers: 1, width: 128, heads: 4}""",
    "epochs": "5",
    "batch_size": "128",
    "lr": "0.002",
    "warmup_steps": "20",
    "tasks": "data/demo/benchmark",
    "licence": "data/demo/ATTRIBUTION.md ",
    "experiment": "cliprd-demo",
    "guide": "docs/retraining.md",
    "code": "src/**",
    "install": '|\n          make setup\n          echo "$PWD/.venv/bin" >>"$GITHUB_PATH"',
    "install_cliprd": 'echo "PYTHONPATH=$PWD/src" >>"$GITHUB_ENV"',
    "more": """*.egg-info/
.pytest_cache/
.mypy_cache/
.ruff_cache/
.hypothesis/
/dist/
/.stack/
/.secrets
/.actrc
""",
}


@pytest.mark.parametrize("name", SHARED)
def test_this_repository_is_the_template_with_the_demos_values(name):
    """CLIPRD_UPDATE_GOLDEN=1 writes this repository's files after a deliberate change of a template."""
    text = project.render(project.FILES[name], DEMO)
    if os.environ.get("CLIPRD_UPDATE_GOLDEN"):
        (ROOT / name).write_text(text, encoding="utf-8")
    assert (ROOT / name).read_text(encoding="utf-8") == text


def test_a_new_project_has_parameters_that_load_and_names_its_own_data(tmp_path, capsys):
    folder = tmp_path / "my pets: 2"
    assert cli.main(["init", str(folder), "--data", "s3://bucket/pets/{00..09}.tar", "--tasks", "tasks"]) == 0
    params = load(folder / "params.yaml")
    assert params.data.path == "s3://bucket/pets/{00..09}.tar"
    assert params.benchmark.tasks == "tasks"
    assert params.tracking.experiment == "my pets: 2"
    for name in project.FILES:
        assert "demo/" not in (folder / name).read_text()
    workflow = yaml.safe_load((folder / ".github/workflows/retrain.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert not [command for command in commands if "tools/" in command or "src" in command or "make " in command]
    assert "requirements.txt" in commands[0]


def test_files_that_are_there_are_named_and_none_is_written(tmp_path, capsys):
    (tmp_path / "dvc.yaml").write_text("mine")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("mine")
    assert cli.main(["init", str(tmp_path)]) == 3
    error = capsys.readouterr().err
    assert "dvc.yaml, .dvc/config" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == [".dvc", "dvc.yaml"]
    assert (tmp_path / "dvc.yaml").read_text() == "mine"
