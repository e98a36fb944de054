"""What the tests of the cluster's commands share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/cliprd@sha256:" + "0" * 64
# Without the lines on stderr about the demo's tracking address, which pods cannot use, and about retries.
QUIET = ["--set", "tracking.uri=", "--set", "kubernetes.retries=0"]
