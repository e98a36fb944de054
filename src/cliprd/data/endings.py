"""File name endings of pictures."""

from __future__ import annotations

EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".jpe", ".jfif", ".jif", ".mpo", ".apng", ".avif", ".jp2", ".j2k", ".jpx", ".jpc", ".j2c", ".jpf", ".ico"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".psd", ".qoi", ".sgi", ".rgb", ".icns", ".dds"),
    *(".pcx", ".xbm", ".xpm"),
)
FOREIGN_EXTENSIONS = (".heic", ".heif", ".hif", ".svg", ".svgz", ".jxl", ".tga", ".eps", ".dng", ".cr2", ".nef", ".arw")
"""Endings of pictures in formats that cannot be decoded: rejected as unsupported, not as missing."""
PICTURES = (*EXTENSIONS, *FOREIGN_EXTENSIONS)
