"""What each package holds, as items: key, image file, captions or class. The cleaning rules are here."""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Item:
    """An image to embed.

    Attributes:
        key: unique, `<source>-<name>`.
        path: image file.
        captions: best first; empty for a purely classified item.
        label: class name, or empty.
    """

    key: str
    path: Path
    captions: tuple[str, ...] = ()
    label: str = ""


def clean(text: str) -> str:
    """Unescape HTML twice (openclipart is escaped twice), one line, single spaces."""
    return " ".join(html.unescape(html.unescape(text)).split())


def words(name: str) -> str:
    """A file name as words: `flying_carrot_01` → `flying carrot`."""
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return " ".join(re.sub(r"[^A-Za-z]+", " ", name).lower().split())


def safe(name: str) -> str:
    """Without dots and slashes, which WebDataset gives a meaning."""
    return re.sub(r"[^0-9A-Za-z]+", "-", name).strip("-").lower()


def _emoji_json(package: Path) -> list[dict]:
    return json.loads((package / "package" / "emoji.json").read_text(encoding="utf-8"))


def _emoji_name(entry: dict) -> str:
    return clean(entry["name"]).lower()


def emoji(package: Path, vendor: str) -> Iterator[Item]:
    """Base emoji of one vendor, captioned with the Unicode name and, where it differs, the short name."""
    for entry in _emoji_json(package):
        path = package / "package" / "img" / vendor / "64" / entry["image"]
        if not entry[f"has_img_{vendor}"] or not path.exists():
            continue
        short = re.sub(r"\d+$", "", entry["short_name"].replace("_", " ").replace("-", " ")).strip()
        captions = tuple(dict.fromkeys(c for c in (_emoji_name(entry), short) if len(c) > 1))
        yield Item(f"{vendor}-{safe(entry['image'].removesuffix('.png'))}", path, captions)


FLUENT_CATEGORIES = ("Objects", "Travel & Places", "Animals & Nature", "Food & Drink", "Activities")


def fluent(package: Path, emoji_package: Path) -> Iterator[Item]:
    """3-D renders of object-like concepts; the class is the Unicode name. A style that training never shows."""
    seen = set()
    for entry in sorted(_emoji_json(emoji_package), key=lambda e: e["sort_order"]):
        name = _emoji_name(entry)
        codes = (entry["unified"].lower(), (entry["non_qualified"] or "").lower())
        path = next((p for c in codes if c and (p := package / "package" / "assets" / f"{c}.webp").exists()), None)
        if entry["category"] in FLUENT_CATEGORIES and path is not None and name not in seen:
            seen.add(name)
            yield Item(f"fluent-{safe(path.stem)}", path, (), name)


DROPPED = ("shapes/stars", "shapes/arrows", "shapes/flowchart", "special/", "unsorted/duplicates")


def openclipart(png: Path, svg: Path) -> Iterator[Item]:
    """Clip art, captioned with its title (or file name, where the title is shared by many) and its keywords."""
    root, meta = png / "usr/share/openclipart/png", svg / "usr/share/openclipart/svg"
    entries = []
    for path in sorted(root.rglob("*.png")):
        relative = path.relative_to(root)
        if not path.is_file() or relative.as_posix().startswith(DROPPED) or "keyboard" in relative.as_posix().lower():
            continue
        title, keywords = _metadata(meta / relative.with_suffix(".svg"))
        entries.append((path, relative, title, keywords))
    shared = Counter(title.lower() for _, _, title, _ in entries)
    for path, relative, title, keywords in entries:
        plain = words(title) if re.search(r"[_\d]", title) else title.lower()
        usable = title and shared[title.lower()] <= 3 and re.search(r"[a-z]{3}", plain) and len(plain) <= 80
        first = plain if usable else words(path.stem)
        if not re.search(r"[a-z]{3}", first):
            first = ""
        listed = [k for k in dict.fromkeys(keywords) if k not in first.split()][:6]
        second = ", ".join([first, *listed] if first else listed)
        captions = tuple(dict.fromkeys(c for c in (first, second) if len(c) > 2))
        if captions:
            yield Item(f"openclipart-{safe(relative.with_suffix('').as_posix())}", path, captions)


NO_KEYWORDS = {
    "unsorted",
    "clip art",
    "clipart",
    "image",
    "media",
    "public domain",
    "png",
    "svg",
    "externalsource",
    "hash",
}


def _metadata(path: Path) -> tuple[str, list[str]]:
    """Title and keywords of an SVG, by pattern: many of the files are no well-formed XML."""
    if not path.exists():
        return "", []
    text = path.read_bytes()[:200_000].decode("utf-8", "replace")
    found = re.search(r"<cc:Work.*?</cc:Work>|<Work.*?</Work>", text, re.DOTALL)
    work = found.group(0) if found else text
    title = re.search(r"<(?:dc:)?title>(.*?)</(?:dc:)?title>", work, re.DOTALL)
    subject = re.search(r"<(?:dc:)?subject>(.*?)</(?:dc:)?subject>", work, re.DOTALL)
    listed = re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", subject.group(1), re.DOTALL) if subject else []
    keywords = [clean(k).lower().replace("_", " ") for k in listed]
    name = clean(title.group(1)) if title else ""
    if "Open Clip Art" in name or name.lower() in ("", "untitled", "unsorted"):
        name = ""
    return name, [k for k in keywords if k and k not in NO_KEYWORDS and re.fullmatch(r"[a-z' -]{3,24}", k)]


# Folder of a photo → class. 17 classes; folders of drawings and what is too mixed to name are left out.
PHOTO_CLASSES = {
    "animals/birds": "bird",
    "animals/fish": "fish",
    "animals/insects": "insect",
    "animals/mammals": "mammal",
    "food/fruit": "fruit",
    "food/nuts": "nut",
    "food/vegetables": "vegetable",
    "hobbies/music": "musical instrument",
    "household/dishes": "piece of kitchenware",
    "household/tools": "tool",
    "plants/flowers": "flower",
    "plants/mushrooms": "mushroom",
    "plants/trees": "tree",
    "space/planets": "planet",
    "sports": "piece of sports equipment",
    "town/roadsigns": "road sign",
    "vehicles": "vehicle",
}
# Stamps that the folder's class does not name (a slug among the insects, the sun among the planets).
MISPLACED = (
    "animals/fish/lobster", "animals/fish/shrimp", "animals/insects/Brown_slug", "animals/insects/Woodlouse",
    "food/vegetables/mushroom", "plants/trees/holly_leaves", "plants/trees/pinecone", "plants/trees/rambutan",
    "space/planets/0_sun", "sports/trophy_cup", "town/roadsigns/stoplight", "town/roadsigns/traffic_cone",
    "vehicles/7spoke256", "vehicles/emergency/sedan_police", "vehicles/wheel_tractor",
)  # fmt: skip
DRAWINGS = ("cartoon", "symbols/", "alphabets", "/toys", "plastic")
# Drawings in folders of photographs, by eye: counting colours cannot tell them from clean photographs.
DRAWN = (
    "animals/mammals/hedgehog", "clothes/button", "clothes/hats/", "clothes/t_", "food/pizza", "medical/tooth",
    "naturalforces/", "people/body_parts/", "seasonal/easter/", "seasonal/hanukkah/", "seasonal/newyears/",
    "seasonal/christmas/Santa", "seasonal/christmas/bow", "seasonal/christmas/candy_cane",
    "seasonal/christmas/hard_candy", "seasonal/christmas/lamp", "seasonal/christmas/santahat",
    "seasonal/christmas/star", "seasonal/christmas/stocking", "seasonal/christmas/tree",
    "seasonal/halloween/bat", "seasonal/halloween/blackcat", "seasonal/halloween/ghost",
    "seasonal/halloween/jackolantern", "seasonal/halloween/skull", "seasonal/halloween/spider",
    "town/flags/", "town/monuments/inukshuk-outline",
)  # fmt: skip
# Photographs whose caption does not say which one it is: six more gravestones, "Some flowers", "An alien tree!".
VAGUE = (
    "military/ammunition/", "military/final-roll-call", "plants/flowers/flower1.", "plants/flowers/flower4",
    "plants/flowers/flower7", "plants/trees/rambutan",
    *(f"seasonal/halloween/grave-{letter}" for letter in "bcdefghij"),
)  # fmt: skip


def stamps(package: Path) -> Iterator[Item]:
    """Tux Paint's PNG stamps but for cartoons and mirror images: all set aside, photographs tested on.

    Outside the classes' folders a stamp whose caption an earlier one has, or that has none, is left out.
    `label` is the class of a photograph in a folder of PHOTO_CLASSES; `captions` has the English caption of a
    photograph, and is empty where it would not say which one it is.
    """
    root = package / "usr/share/tuxpaint/stamps"
    seen: set[str] = set()
    for path in sorted(root.rglob("*.png")):
        relative = path.relative_to(root).as_posix()
        if any(word in relative for word in DRAWINGS) or re.search(r"_(mirror|flip)\.png$", relative):
            continue
        text = path.with_suffix(".txt")
        lines = text.read_text(encoding="utf-8").splitlines() if text.exists() else []
        caption = clean(lines[0]).rstrip(".") if lines else ""
        label = next((c for folder, c in PHOTO_CLASSES.items() if relative.startswith(folder + "/")), "")
        if not label and (not caption or caption.lower() in seen):
            continue
        seen.add(caption.lower())
        if relative.startswith((*DRAWN, *VAGUE)):
            caption = ""
        if relative.startswith((*DRAWN, *MISPLACED)):
            label = ""
        yield Item(f"tuxpaint-{safe(relative.removesuffix('.png'))}", path, (caption,) if caption else (), label)


FASHION_CLASSES = (
    "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def fashion(package: Path, per_class: int) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
    """The first `per_class` test images of each class: key, class index, `[28, 28]` pixels."""
    root = package / "usr/share/datasets/fashion-mnist"
    images = np.frombuffer(gzip.decompress((root / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((root / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    taken: Counter[int] = Counter()
    for number, (pixels, label) in enumerate(zip(images.reshape(-1, 28, 28), labels.tolist(), strict=True)):
        if taken[label] < per_class:
            taken[label] += 1
            yield f"fashion-{number:05d}", label, pixels


VARIANT_WORDS = frozenset(
    ["bw", "b", "w", "amp", "and", "simple", "stylized", "colour", "color", "black", "white", "r"]
)


def family(key: str) -> str:
    """A clip art's key without numbers and words of variants: `…-apple-bw` and `…-apple-2` are one family.

    Line art and its coloured twin correlate too little to be found by their pixels; their authors name them alike.
    """
    parts = (part.rstrip("0123456789") for part in key.split("-"))
    return "-".join(part for part in parts if part and part not in VARIANT_WORDS)


def clipart_captions() -> dict[str, str]:
    """Key → caption of the clip-art task: what the picture shows, in English, written after its title.

    Of the clip art that is held out, series of near twins (playing cards, lamps, arrows, outlines of maps), twins of
    training images under other names and pictures that cannot be named are not listed.
    """
    lines = (Path(__file__).parent / "clipart_captions.tsv").read_text(encoding="utf-8").splitlines()
    return {key: caption for key, _, caption in (line.partition("\t") for line in lines)}


def held_out(key: str, percent: int) -> bool:
    """A fixed share of keys, by hash."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little") % 100 < percent
