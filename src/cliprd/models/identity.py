"""What identifies a teacher before it is loaded; no model library is needed to know it."""

from __future__ import annotations

import os
from typing import Any

from cliprd import storage
from cliprd.params import Teacher


def weights_version(name: str) -> str:
    """What identifies the weights behind a teacher's name; empty where the name alone does: a tag, the aligned one.

    Raises:
        InputError: a file in S3 is missing, or one is forbidden. RetryableError: the network or the store failed.
    """
    pretrained = name.split(":", 2)[-1]
    here_or_in_s3 = storage.is_s3(pretrained) or os.path.isfile(pretrained)
    return storage.fingerprints([pretrained])[pretrained] if here_or_in_s3 else ""


def shaping(teacher: Teacher) -> dict[str, Any]:
    """What of the section makes a teacher what it is: training settings do not change a finished model."""
    return teacher.model_dump(mode="json") if teacher.name == "aligned" else {"name": teacher.name}
