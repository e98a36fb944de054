"""What the tests of the cluster's commands share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/cliprd@sha256:" + "0" * 64
