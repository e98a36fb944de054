"""ATTRIBUTION.md: each source's version, licence and counts."""

# ruff: noqa: E501 (prose of a Markdown table)
from __future__ import annotations

from typing import Any

from packages import Package

USES = {
    "google": ("google", "training"),
    "twitter": ("twitter", "training"),
    "openclipart-png": ("openclipart", "training, and the task `openclipart_captions`"),
    "openclipart-svg": (None, "titles and keywords of the above"),
    "fluent": (None, "task `fluent_emoji`"),
    "fashion": (None, "task `fashion_mnist` (the first 200 test images of each class)"),
    "tuxpaint": (None, "tasks `tuxpaint_photos` and `tuxpaint_captions`, in `gpl-2/`"),
}

TEXT = """# Where the embedded images come from

Rebuilt byte for byte by `tools/demo_data/build.py` from the packages named here. Every image was pasted on white, cut to
what can be seen, padded to a square and scaled down (Fashion-MNIST is as it was); nothing else was changed. `SHA256SUMS` lists every file, `counts.json` the counts below.

| source | package and version | licence | used for | training pairs |
|---|---|---|---|---|
{rows}

{total} training pairs in `train/`. {near} further ones were left out because they look like a benchmark image (difference
hash of 256 bits, distance up to 26). No benchmark image is ever trained on.

| task | images |
|---|---|
{tasks}

## Licences

- **Noto Emoji**: Apache License 2.0.
- **Twemoji** graphics: Copyright Twitter, Inc and other contributors, licensed under CC BY 4.0
  (https://creativecommons.org/licenses/by/4.0/). Changes: placed on white, re-encoded as WebP.
- **Fluent Emoji**: Copyright (c) Microsoft Corporation, MIT License.
- **Open Clip Art Library**: dedicated to the public domain by its authors.
- **Fashion-MNIST**: Copyright (c) 2017 Zalando SE, MIT License.
- **Tux Paint stamps** (`gpl-2/`): GNU General Public License, version 2, whose text is `gpl-2/LICENSE`; copyright Bill
  Kendrick and the contributors that the Debian package's copyright file names. They are a separate work, merely
  aggregated here: data that the benchmark reads, no part of cliprd's code, of training, or of any student. The source
  form of each picture is the PNG in the Debian package. Delete the folder `gpl-2/` and its two links in `benchmark/` and
  all else still works.
"""


def attribution(packages: dict[str, Package], facts: dict[str, Any]) -> str:
    """The whole document."""
    rows = []
    for name, package in packages.items():
        counted, use = USES[name]
        pairs = facts["train"].get(counted, "") if counted else ""
        rows.append(
            f"| {package.title} | {package.client}: {package.name} {package.version} | {package.licence} | {use} | {pairs} |"
        )
    tasks = [f"| {name} | {count} |" for name, count in facts["benchmark"].items()]
    return TEXT.format(
        rows="\n".join(rows),
        tasks="\n".join(tasks),
        total=sum(facts["train"].values()),
        near=facts["removed_near_benchmark"],
    )
