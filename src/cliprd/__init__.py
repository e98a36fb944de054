"""cliprd: distil a large CLIP into a small one with relational distillation (CLIP-RD)."""

__version__ = "0.1.0"
