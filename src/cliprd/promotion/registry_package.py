"""What a version in MLflow's registry holds: a pyfunc that serves, and all that the next gate needs.

MLmodel, served_model.py, requirements.txt, input_example.json …     MLflow's own (models from code: no pickle)
MODEL_CARD.md
artifacts/student/  artifacts/benchmark/  artifacts/benchmark-1/ …   as their stages wrote them, manifests included
artifacts/lineage.json                                               where the benchmark has one
"""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import io
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cliprd import files, lineage, storage
from cliprd.artifact import manifest
from cliprd.artifact.folder import put_folder
from cliprd.errors import InputError
from cliprd.params import Params
from cliprd.promotion.mlflow_client import unless_missing
from cliprd.promotion.package import Package, benchmark_names
from cliprd.report.card import model_card
from cliprd.report.decision import markdown as decision_markdown
from cliprd.tracking.runs import run_of
from cliprd.tracking.server import experiment_id

CARD = "MODEL_CARD.md"
SCHEMA = "1"  # of the tags (`registry`)
DESCRIPTION = 5000  # characters that MLflow's database holds
SERVED = Path(__file__).with_name("served_model.py")
_SAVING = threading.Lock()  # MLflow keeps the model of a code file in a global
REQUIRED = ("mlflow", "torch", "torchvision", "open_clip_torch", "pillow", "numpy", "pandas", "safetensors")


def register(client: Any, name: str, package: Package, params: Params, decision: Mapping[str, Any]) -> str:
    """Log the package and make it a version of the model `name`, from the run of its training. Returns its number.

    A killed upload leaves a logged model without a version, which the next one resumes.
    """
    run_id = run_of(params, package.student)  # a training that never reached this server has none
    run = unless_missing(lambda: client.get_run(run_id)) if run_id else None
    source = run.info.run_id if run else None
    experiment = run.info.experiment_id if run else experiment_id(client, params.tracking.experiment)
    tags = {"cliprd.version": package.digest, "cliprd.schema": SCHEMA}
    query = f"tags.`cliprd.version` = '{package.digest}'"
    logged = client.search_logged_models([experiment], filter_string=query, max_results=1)
    with files.temporary_folder(storage.scratch("packages"), "model") as temporary:
        folder = temporary / "model"
        card = write(package, params, decision, folder)
        model = (
            logged[0]
            if logged
            else client.create_logged_model(experiment, name=name, source_run_id=source, tags=tags, model_type="CLIP")
        )
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    with _default_uri(params.tracking.uri):
        version = client.create_model_version(
            name,
            source=f"models:/{model.model_id}",
            run_id=source,
            tags={**tags, "cliprd.marks": json.dumps(package.marks), "cliprd.benchmarks": str(len(package.benchmarks))},
            description=_description(card),
            model_id=model.model_id,
        )
    return str(version.version)


def write(package: Package, params: Params, decision: Mapping[str, Any], folder: Path) -> str:
    """Write the complete package into `folder`, which is not there yet. Returns the model card.

    Raises:
        InputError: `promote.licence` names a file that cannot be read.
    """
    import mlflow

    card = _card(package, params, decision)
    with files.temporary_folder(storage.scratch("packages"), "student") as temporary:
        student = temporary / "student"
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
    _remove_local_paths(folder / "MLmodel")
    names = benchmark_names(len(package.benchmarks))
    for name, source in zip(names, package.benchmarks, strict=True):
        put_folder(source, folder / "artifacts" / name)
    if (tree := lineage.load(package.benchmarks[0])) is not None:
        files.write_json(folder / "artifacts" / lineage.NAME, tree)
    (folder / CARD).write_text(card, encoding="utf-8")
    return card


def _remove_local_paths(file: Path) -> None:
    """MLflow records where this machine had the code and the student; only the names are of use elsewhere."""
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


@contextlib.contextmanager
def _default_uri(uri: str) -> Iterator[None]:
    """MLflow's own store in a database file looks a logged model up at the process's default address only."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def _description(card: str) -> str:
    end = f"\n\n… the rest is in {CARD}."
    return card if len(card) <= DESCRIPTION else card[: DESCRIPTION - len(end)] + end


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
        licence=licence(params.promote.licence),
    )


def licence(text: str) -> str:
    """`promote.licence` itself, or the text of the file it names.

    Raises:
        InputError: the file cannot be read.
    """
    if "\n" in text or not text.endswith((".md", ".txt")):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"promote.licence = {text} cannot be read.", "Name a file, or write the text itself."
        ) from error
