"""A project of one's own around an installed cliprd: the files that `cliprd init` writes.

This repository's params.yaml, dvc.yaml, .gitignore, .dvc and retraining workflow are the same templates with the demo's
values; tests/project/test_project.py compares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from cliprd import __version__
from cliprd.errors import InputError
from cliprd.files import atomic_write

TEMPLATES = Path(__file__).parent / "templates"
FILES = {
    "params.yaml": "params.yaml.in",  # DVC reads every params.yaml and dvc.yaml below a repository
    "dvc.yaml": "dvc.yaml.in",
    "requirements.txt": "requirements.txt",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    ".dvc/config": "dvc-config",
    ".dvc/.gitignore": "dvc-gitignore",
    ".github/workflows/retrain.yml": "retrain.yml",
}
SCHEMA = "params.schema.json"
VALUES = {
    "profile": "`cliprd plan` tells what these values cost.",
    "schema": SCHEMA,
    "samples_per_shard": "10000",
    "teacher": "open_clip:ViT-B-16:laion400m_e32",
    "student": "arch: ViT-T-16           # or any open_clip config, inline under `config`",
    "epochs": "32",
    "batch_size": "256",
    "lr": "0.001",
    "warmup_steps": "100",
    "licence": '""',
    "guide": "README.md",
    "code": "requirements.txt",
    "install": "python -m pip install -r requirements.txt",
    "install_cliprd": "python -m pip install --no-deps -r requirements.txt",
    "more": "",
}
_PLACEHOLDER = re.compile(r"@([a-z_]+)@")


def render(template: str, values: Mapping[str, str]) -> str:
    """A template's text with each `@name@` replaced by its value.

    Raises:
        KeyError: it names a value that is not given.
    """
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def write(folder: Path, *, data: str, tasks: str) -> list[str]:
    """Write the files of a new project; nothing is written where one of them is there already.

    Args:
        folder: the project; made if it is not there.
        data: `data.path` of params.yaml. tasks: its `benchmark.tasks`. Relative paths are relative to the project.

    Returns:
        Names of the files.

    Raises:
        InputError: one of the files exists.
    """
    from cliprd.params import schema

    name = folder.resolve().name
    given = {"name": name, "experiment": json.dumps(name), "data": json.dumps(data), "tasks": json.dumps(tasks)}
    values = {**VALUES, **given, "version": __version__}
    texts = {path: render(template, values) for path, template in FILES.items()} | {SCHEMA: schema()}
    if existing := [path for path in texts if (folder / path).exists()]:
        raise InputError(f"{folder} has {', '.join(existing)} already; nothing was written.", "Give another folder.")
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / path, "w") as file:
            file.write(text)
    return sorted(texts)
