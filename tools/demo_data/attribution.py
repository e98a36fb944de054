"""ATTRIBUTION.md: each source's version, licence and counts."""

# ruff: noqa: E501 (prose of a Markdown table)
from __future__ import annotations

from typing import Any

from hashing import THRESHOLD
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

Rebuilt byte for byte by `tools/demo_data/build.py` from the packages named here (Pillow {pillow}, libwebp {libwebp}, zlib {zlib}).
Every image was pasted on white, cut to what can be seen, padded to a square and scaled down (Fashion-MNIST is as it was); nothing
else was changed. `SHA256SUMS` lists every file, `counts.json` the counts below.

| source | package and version | licence | used for | training pairs |
|---|---|---|---|---|
{rows}

{total} training pairs in `train/`. {near} further ones were left out because they look like an image that is set aside for a
benchmark (difference hash of 256 bits, distance up to {threshold}). No benchmark image is ever trained on.

| task | images | what |
|---|---|---|
{tasks}

## Licences

- **Noto Emoji**: Apache License 2.0 (the text is `LICENSE` at the root of the repository). Changes: placed on white, re-encoded.
- **Twemoji** graphics: Copyright Twitter, Inc and other contributors, licensed under CC BY 4.0
  (https://creativecommons.org/licenses/by/4.0/). Changes: placed on white, re-encoded as WebP.
- **emoji names and packaging** (iamcal/emoji-data): MIT, `licences/emoji-data.txt`.
- **Fluent Emoji**: Copyright (c) Microsoft Corporation, MIT, `licences/fluent-emoji.txt`.
- **Open Clip Art Library**: dedicated to the public domain by its authors, `licences/openclipart.txt`.
- **Fashion-MNIST**: Copyright (c) 2017 Zalando SE, MIT, `licences/fashion-mnist.txt`.
- **Tux Paint stamps** (`gpl-2/`): GNU General Public License, version 2 (`gpl-2/LICENSE`); copyright Bill Kendrick and
  contributors (`gpl-2/copyright`). They are a separate work, merely aggregated here: see `gpl-2/README.md`.
"""

TASKS = {
    "fashion_mnist": "10 classes of clothes and shoes, 28 × 28 grey, the first 200 test images of each",
    "fluent_emoji": "3-D renders, one of each class: a style that training never shows",
    "openclipart_captions": "clip art held out by a hash of its path; captions written after the titles, in English. Those "
    "that are a variant of a training image (recoloured, mirrored, another frame), by look or by file name, are left out",
    "tuxpaint_captions": "photographs with the English captions of their makers (GPL-2)",
    "tuxpaint_photos": "photographs in 17 classes, after the stamps' folders (GPL-2)",
}


def attribution(packages: dict[str, Package], facts: dict[str, Any]) -> str:
    """The whole document."""
    rows = []
    for name, package in packages.items():
        counted, use = USES[name]
        pairs = facts["train"].get(counted, "") if counted else ""
        rows.append(
            f"| {package.title} | {package.client}: {package.name} {package.version} | {package.licence} | {use} | {pairs} |"
        )
    tasks = [f"| `{name}` | {count} | {TASKS[name]} |" for name, count in facts["benchmark"].items()]
    return TEXT.format(
        rows="\n".join(rows),
        tasks="\n".join(tasks),
        total=sum(facts["train"].values()),
        near=facts["removed_near_benchmark"],
        threshold=THRESHOLD,
        **facts["built_with"],
    )
