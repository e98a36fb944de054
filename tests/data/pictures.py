"""Real encoded pictures for the tests, one of every ill."""

import io
import tarfile

import numpy as np
from PIL import Image


def noise(width=40, height=30, seed=0, channels=3, depth=8):
    """Pixels that no decoder can guess."""
    rng = np.random.default_rng(seed)
    shape = (height, width, channels) if channels > 1 else (height, width)
    return rng.integers(0, 2**depth, shape, dtype=np.uint8 if depth == 8 else np.uint16)


def encoded(image, form="PNG", **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(seed=0, width=40, height=30):
    return encoded(noise(width, height, seed))


def with_orientation(orientation, form="JPEG", pixels=None):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(noise() if pixels is None else pixels, form, exif=exif)


def bomb(width=50_000, height=50_000):
    """A PNG of a few bytes whose header promises billions of pixels."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def write_tar(path, members, mode="w"):
    """`members`: (name, bytes) pairs, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def pairs(count, start=0):
    """img2dataset's members for `count` samples."""
    members = []
    for i in range(start, start + count):
        members += [
            (f"{i:09d}.png", png(seed=i, width=20, height=16)),
            (f"{i:09d}.txt", f"picture {i} of noise".encode()),
            (f"{i:09d}.json", b'{"caption": "other", "status": "success"}'),
        ]
    return members
