"""Training of the student. Independent of trackers and schedulers: it reports through a callback.

The package can be called: the library's function has its name, see `cliprd.library.distill`.
"""

import importlib
import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    def __call__(self, params: Any, shards: Any, cache: Any, output: Any) -> Any:
        """Train a student as the stage does; see `cliprd.library.distill`."""
        # By name: the library lies above this package, and is none of its imports.
        return importlib.import_module("cliprd.library").distill(params, shards, cache, output)


sys.modules[__name__].__class__ = _Callable
