"""What a version in MLflow's registry holds: a pyfunc that serves, and all that the next gate needs.

MLmodel, served_model.py, requirements.txt, input_example.json …     MLflow's own (models from code: no pickle)
MODEL_CARD.md
artifacts/student/  artifacts/benchmark/  artifacts/benchmark-1/ …   as their stages wrote them, manifests included
artifacts/lineage.json                                               where the benchmark has one
"""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cliprd import files, lineage, storage
from cliprd.artifact import manifest
from cliprd.artifact.folder import put_folder
from cliprd.errors import InputError
from cliprd.params import Params
from cliprd.promotion import versions
from cliprd.report.card import model_card
from cliprd.report.decision import markdown as decision_markdown

if TYPE_CHECKING:
    from cliprd.promotion.champion import Package

CARD = "MODEL_CARD.md"
SERVED = Path(__file__).with_name("served_model.py")
_SAVING = threading.Lock()  # MLflow keeps the model of a code file in a global
REQUIRED = ("mlflow", "torch", "torchvision", "open_clip_torch", "pillow", "numpy", "pandas", "safetensors")


def write(package: Package, params: Params, decision: Mapping[str, Any], folder: Path) -> str:
    """Write the whole package into `folder`, which is not there yet. Returns the model card.

    Raises:
        InputError: `promote.licence` names a file that cannot be read.
    """
    import mlflow

    card = _card(package, params, decision)
    with files.temporary_folder(storage.scratch("packages"), "student") as place:
        student = place / "student"
        put_folder(package.student, student)
        with _SAVING:
            mlflow.pyfunc.save_model(
                path=str(folder),
                python_model=str(SERVED),
                artifacts={"student": str(student)},
                signature=_signature(),
                input_example=_example(),
                pip_requirements=requirements(student),
            )
    _without_places(folder / "MLmodel")
    names = versions.benchmark_names(len(package.benchmarks))
    for name, source in zip(names, package.benchmarks, strict=True):
        put_folder(source, folder / "artifacts" / name)
    if (tree := lineage.load(package.benchmarks[0])) is not None:
        files.write_json(folder / "artifacts" / lineage.NAME, tree)
    (folder / CARD).write_text(card, encoding="utf-8")
    return card


def _without_places(file: Path) -> None:
    """MLflow writes down where this machine had the code and the student; only the names are of use elsewhere."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    function = content["flavors"]["python_function"]
    function["model_code_path"] = SERVED.name
    function["artifacts"]["student"]["uri"] = function["artifacts"]["student"]["path"]
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def requirements(student: Path) -> list[str]:
    """The installed versions of what serving needs, without the names of local builds (`+cpu`)."""
    names = list(REQUIRED)
    config = json.loads((student / "open_clip_config.json").read_text(encoding="utf-8"))
    if (config.get("model_cfg", {}).get("text_cfg") or {}).get("hf_model_name"):
        names.append("transformers")
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _signature() -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([ColSpec("string", name, required=False) for name in ("image", "text")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, -1))]),
        params=ParamSchema(
            [
                ParamSpec("classes", "string", default=[], shape=(-1,)),
                ParamSpec("templates", "string", default=["a photo of a {c}."], shape=(-1,)),
            ]
        ),
    )


def _example() -> Any:
    """Two pictures and the names to choose from."""
    import pandas
    from PIL import Image

    def encoded(colour: str) -> str:
        data = io.BytesIO()
        Image.new("RGB", (32, 32), colour).save(data, "PNG")
        return base64.b64encode(data.getvalue()).decode()

    rows = pandas.DataFrame({"image": [encoded("red"), encoded("blue")]})
    return rows, {"classes": ["something red", "something blue"]}


def _card(package: Package, params: Params, decision: Mapping[str, Any]) -> str:
    trained, scored = manifest.read(package.student), package.benchmarks[0]
    return model_card(
        title=trained.facts.get("run") or "Student",
        trained={
            "params": trained.params,
            "facts": trained.facts,
            "inputs": trained.inputs,
            "code": trained.code,
        },
        results=json.loads((scored / "results.json").read_text(encoding="utf-8")),
        lineage=lineage.load(scored),
        decision=decision_markdown(decision),
        licence=_licence(params.promote.licence),
    )


def _licence(text: str) -> str:
    """The text itself, or that of the file it names."""
    if "\n" in text or not text.endswith((".md", ".txt")):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"promote.licence = {text} cannot be read.", "Name a file, or write the text itself."
        ) from error
