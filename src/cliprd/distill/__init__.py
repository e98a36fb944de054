"""Training of the student. Independent of trackers and schedulers: it reports through a callback.

The package can be called: the library's function has its name, see `cliprd.library.distill`.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliprd.artifact.manifest import Manifest
    from cliprd.data.shards import ShardSet
    from cliprd.params import Params
    from cliprd.teacher_cache import TeacherCache


class _Callable(types.ModuleType):
    def __call__(
        self,
        params: Params | Mapping[str, Any] | str | Path,
        shards: ShardSet | str | Path,
        cache: TeacherCache | str | Path,
        output: str | Path,
    ) -> Manifest:
        """Train a student as the stage does; see `cliprd.library.distill`."""
        # By name: the library lies above this package, and is none of its imports.
        made: Manifest = importlib.import_module("cliprd.library").distill(params, shards, cache, output)
        return made


sys.modules[__name__].__class__ = _Callable
