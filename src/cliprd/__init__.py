"""cliprd: distil a large CLIP into a small one with relational distillation (CLIP-RD).

The names below are the library; docs/library.md shows their use. They are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliprd.distill.pairs import CachedPairs as CachedPairs
    from cliprd.distill.terms import register_term as register_term
    from cliprd.library import distill as distill
    from cliprd.library import evaluate as evaluate
    from cliprd.library import load_teacher as load_teacher
    from cliprd.library import open_shards as open_shards
    from cliprd.library import open_teacher_cache as open_teacher_cache
    from cliprd.losses import DistillationLoss as DistillationLoss
    from cliprd.losses import LossWeights as LossWeights
    from cliprd.losses import method_weights as method_weights
    from cliprd.models.plugin import register_teacher as register_teacher
    from cliprd.models.student import load_student as load_student

__version__ = "0.1.0"
_MODULES = {
    "CachedPairs": "cliprd.distill.pairs",
    "DistillationLoss": "cliprd.losses",
    "LossWeights": "cliprd.losses",
    "evaluate": "cliprd.library",
    "load_student": "cliprd.models.student",
    "load_teacher": "cliprd.library",
    "method_weights": "cliprd.losses",
    "open_shards": "cliprd.library",
    "open_teacher_cache": "cliprd.library",
    "register_teacher": "cliprd.models.plugin",
    "register_term": "cliprd.distill.terms",
}
__all__ = ["__version__", "distill", *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "distill":  # the package, which can be called: its name is taken by its import
        return import_module("cliprd.distill")
    if name not in _MODULES:
        raise AttributeError(f"module 'cliprd' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
