"""The licence texts that go with the images, copied from the packages where they carry them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

GPL_2 = Path("/usr/share/common-licenses/GPL-2")  # Debian's packages name this file instead of carrying the text
GPL_2_SHA256 = "8177f97513213526df2cf6184d8ff986c675afb514d4e68a404010521b880643"

# The npm package of the renders names the MIT licence but carries no text: Microsoft's, from its repository
# fluentui-emoji.
FLUENT = """MIT License

Copyright (c) Microsoft Corporation.

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

GPL_NOTE = """# A separate work under the GNU General Public License, version 2

The images in this folder are Tux Paint's stamps, copyright 2002-2022 Bill Kendrick and contributors (`copyright`, as
Debian's package tuxpaint-stamps-default 2022.06.04-1 has it), under the GNU General Public License, version 2 or later
(`LICENSE`). They are merely aggregated with cliprd: test images that the benchmark reads, no part of its code, of any
training, or of any student.

Changed in November 2026: cut to what can be seen, placed on white, scaled to 160 pixels, encoded as WebP; the captions
are the first lines of the stamps' English texts. The source form is the PNG of the same name in that package;
`tools/demo_data/` holds the program that made these files from it.

Without this folder and the two links to it in `benchmark/`, everything else works.
"""


def write_licences(output: Path, packages: Mapping[str, Path]) -> None:
    """`licences/` for the permissive sources, `gpl-2/` with its own text, copyright and note of changes."""
    if not GPL_2.is_file() or hashlib.sha256(GPL_2.read_bytes()).hexdigest() != GPL_2_SHA256:
        raise SystemExit(f"{GPL_2} is missing or another text than expected: build on Debian, package base-files")
    (output / "licences").mkdir()
    doc = "usr/share/doc"
    for origin, name in {
        packages["google"] / "package" / "LICENSE": "licences/emoji-data.txt",
        packages["fashion"] / doc / "dataset-fashion-mnist" / "copyright": "licences/fashion-mnist.txt",
        packages["openclipart-png"] / doc / "openclipart-png" / "copyright": "licences/openclipart.txt",
        packages["tuxpaint"] / doc / "tuxpaint-stamps-default" / "copyright": "gpl-2/copyright",
        GPL_2: "gpl-2/LICENSE",
    }.items():
        shutil.copyfile(origin, output / name)
    (output / "licences" / "fluent-emoji.txt").write_text(FLUENT, encoding="utf-8")
    (output / "gpl-2" / "README.md").write_text(GPL_NOTE, encoding="utf-8")
