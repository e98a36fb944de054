"""The one parameter tree. `params.yaml` is its only source; keys, types and ranges are checked before any work starts.

Sections are what stages declare as their DVC `params:`, so that a changed key reruns only the stages that read it.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from cliprd import document
from cliprd.document import DocumentError
from cliprd.errors import ParamsError
from cliprd.names import shortened

Positive = Annotated[int, Field(gt=0, le=1_000_000_000)]
"""Steps, rows, seconds: a billion is more than any machine does."""
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Rows = Annotated[int, Field(gt=0, le=1 << 20)]
"""Of a batch: the similarities of a million rows with each other are 4 TB."""
Width = Annotated[int, Field(gt=0, le=1 << 16)]
"""Of an embedding or a layer."""
Pixels = Annotated[int, Field(gt=0, le=65_535)]
"""Of a side: what JPEG can hold."""
Many = Annotated[int, Field(gt=0, le=1_000_000)]
"""Epochs, views, resamples."""
Few = Annotated[int, Field(gt=0, le=1024)]
"""Processes, pods, machines."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What a signed integer of 64 bits holds, as torch's generators take it."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]

NULLS = ("~", "null", "Null", "NULL")
CSV_KEYS = ("separator", "image_key", "caption_key")
MOST_FAULTS = 5  # told of one file; a file of another program has hundreds
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)

METHODS = ("baseline", "clip_kd", "vrd", "xrd", "clip_rd")
SectionT = TypeVar("SectionT", bound="Section")
ScaleMode = Literal["raw", "exp"]


def parse_method(spec: str) -> tuple[str, ScaleMode | None]:
    """`clip_rd-exp` → ("clip_rd", "exp"); without a suffix the scale mode is None (take `distill.scale_mode`)."""
    name, dash, mode = spec.partition("-")
    if name not in METHODS or (dash and mode not in ("raw", "exp")):
        raise ValueError(
            f"'{shortened(spec)}' is no method: allowed are {', '.join(METHODS)}, each optionally with -raw or -exp"
        )
    return name, typing.cast(ScaleMode, mode) if dash else None


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{twice[0]!r} stands there twice")
    return values


Once = AfterValidator(_once)  # a seed that counts twice would pass for two trainings


class Section(BaseModel):
    """Unknown keys are refused, values are not coerced between kinds, and nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False,
        use_attribute_docstrings=True,
    )  # fmt: skip


def _resolved(section: SectionT, **values: Any) -> SectionT:
    """A section that was just built, with what other keys decide filled in."""
    section.__dict__.update(values)
    return section


class Data(Section):
    """Where the training pairs come from and how `prepare` packs them."""

    kind: Literal["webdataset", "csv", "folder"] = "webdataset"
    """`webdataset`: img2dataset's tars; `csv`: open_clip's table; `folder`: images with a .txt of the same name."""
    path: str = "data/demo/train"
    """Folder, brace pattern or file; local or s3://."""
    csv_separator: str = "\t"
    """Between columns: one character; `\\t`, as a shell passes it on, is a tab."""
    csv_image_key: str = "filepath"
    csv_caption_key: str = "title"
    csv_quoting: Literal["minimal", "none"] = "minimal"
    """`minimal`: a cell may stand in quotes, its own doubled; `none`: quotes are plain characters."""
    samples_per_shard: Many = 1000
    max_side: Pixels | None = None
    """Longer sides are scaled down to this many pixels when packing; null keeps the source's bytes."""
    max_pixels: Annotated[int, Field(gt=0, lt=2**31)] = 64_000_000
    """Images with more pixels are quarantined unread (decompression bombs)."""
    max_bad_fraction: Fraction = 0.01
    """More quarantined samples than this share fail the stage."""

    @field_validator("csv_separator")
    @classmethod
    def _separator(cls, value: str) -> str:
        value = "\t" if value == "\\t" else value
        if len(value) != 1 or value in '"\r\n\0':
            raise ValueError("one character is needed that is no quote and no line break, such as , or ; or \\t")
        return value


class Augmentation(Section):
    """The stateless random resized crop that teacher and student share (RandomResizedCrop's parameters)."""

    scale: tuple[Rate, Rate] = (0.9, 1.0)
    """Share of the image's area that a crop covers, lowest and highest."""
    ratio: tuple[Rate, Rate] = (0.75, 4 / 3)
    """Width over height of a crop, lowest and highest."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale needs lowest <= highest <= 1")
        if not self.ratio[0] <= self.ratio[1]:
            raise ValueError("ratio needs lowest <= highest")
        return self


class Aligned(Section):
    """Training of the demo teacher's two heads over frozen EfficientNet-Lite0 and MiniLM features."""

    dim: Width = 256
    hidden: Width = 512
    image_size: Pixels = 224
    epochs: Many = 24
    batch_size: Rows = 1024
    lr: Rate = 1e-3
    weight_decay: Weight = 0.1
    dropout: Fraction = 0.3
    seed: Seed = 0


class Preprocess(Section):
    """How a teacher's pictures are prepared; the size is its architecture's."""

    mean: tuple[float, float, float]
    std: tuple[Rate, Rate, Rate]
    interpolation: Literal["bicubic", "bilinear"]
    resize_mode: Literal["shortest", "longest", "squash"]
    """`shortest`: the shorter side is resized and the middle kept; `longest`: the longer side, padded with black;
    `squash`: both sides."""


class Teacher(Section):
    """The large model that is distilled."""

    name: str = "aligned"
    """`aligned` (trained here on packaged weights) or `open_clip:<architecture>:<pretrained tag or file>`; the file may
    lie in s3://, for machines that reach no model hub."""
    quickgelu: bool | None = None
    """Whether weights from a file were trained with QuickGELU. A tag says it itself, as does an architecture whose tags
    agree; where they disagree it must be given."""
    preprocess: str | Preprocess | None = None
    """The preprocessing of weights from a file: a tag of the architecture, or {mean, std, interpolation, resize_mode}.
    As with `quickgelu`, only to be given where nothing says it."""
    aligned: Aligned = Aligned()

    @model_validator(mode="after")
    def _of_open_clip(self) -> Teacher:
        if self.name == "aligned" and (self.quickgelu is not None or self.preprocess is not None):
            raise ValueError("quickgelu and preprocess are for open_clip's teachers; 'aligned' takes neither")
        return self

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        parts = name.split(":", 2)
        if name != "aligned" and not (parts[0] == "open_clip" and len(parts) == 3 and all(parts)):
            raise ValueError("is neither 'aligned' nor 'open_clip:<architecture>:<pretrained tag or file>'")
        return name


class Cache(Section):
    """The teacher cache."""

    views: Many = 1
    """Augmented views stored per image; epoch e of sample k uses view hash(k, e) mod views."""
    batch_size: Rows = 64


class Student(Section):
    """The small model."""

    ARCH: ClassVar[str] = "ViT-T-16"

    arch: str | None = ARCH
    """Name of a config shipped with cliprd or open_clip; null with `config`."""
    config: dict[str, Any] | None = None
    """An open_clip model config: embed_dim, vision_cfg, text_cfg; in place of `arch`."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[Rate, Rate, Rate] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    @model_validator(mode="after")
    def _one_of_both(self) -> Student:
        """The resolved tree names what counts: `arch` or `config`."""
        if self.config is not None and self.arch is not None and "arch" in self.model_fields_set:
            raise ValueError(
                f"student.arch = {self.arch!r} and student.config are both given, and only one can count; remove one, "
                "or set it to null"
            )
        return _resolved(self, arch=None if self.config is not None else self.arch or self.ARCH)


class Weights(Section):
    """Weights of the loss terms; null takes the method's own (official, or 0 where the method lacks the term)."""

    task: Weight | None = None
    hrd: Weight | None = None
    icl: Weight | None = None
    fd: Weight | None = None
    vrd: Weight | None = None
    vrd_ce: Weight | None = None
    xrd: Weight | None = None


class Distill(Section):
    """Training of the student."""

    method: str = "clip_rd-raw"
    """`baseline`, `clip_kd`, `vrd`, `xrd` or `clip_rd`, each optionally followed by `-raw` or `-exp` (scale_mode)."""
    seed: Seed = 0
    scale_mode: ScaleMode = "raw"
    """Multiply the relational logits by the learned scale itself (`raw`, the official code) or by its exponential
    (`exp`). A suffix of `method` decides before this, and then stands here in the resolved tree."""
    weights: Weights = Weights()
    project_task: bool = False
    """True: task and hrd see projected embeddings, as the official multi-GPU code does."""
    chunk_size: Rows | None = None
    """Rows of a similarity matrix held at once; null holds all."""
    epochs: Many = 32
    micro_batch_size: Rows | None = None
    """Rows that a process embeds at once, by gradient caching: gradients are the same, memory no longer grows with
    `batch_size`, for one more forward pass of the towers. null: all its rows."""
    batch_size: Annotated[Rows, Field(ge=2)] = 256
    """Pairs a step, of all processes together: at most. An epoch is cut into batches as equal as can be, so that every
    pair comes once and no batch is tiny; a set smaller than this is one batch."""
    lr: Rate = 1e-3
    weight_decay: Weight = 0.1
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    eps: Rate = 1e-6
    warmup_steps: Count = 100
    clip_grad_norm: Rate | None = 1.0
    max_scale: Rate = 100.0
    """A learned multiplier above this ends the training as diverged, except where it is clamped by definition."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast on a GPU, fp32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Few | Literal["auto"] = "auto"
    """Processes that share each batch, through torchrun: `auto` is one a visible GPU, or 1 on a CPU. `batch_size` stays
    the whole batch's, of which each takes an equal part, so the training is the same on any number."""
    local_loss: bool = False
    """Each process computes its own rows and columns of the similarity matrices in place of all of them, and the terms
    are added up: less work and memory from three processes on; the results are equal."""
    shuffle_buffer: Positive = 20_000
    workers: Annotated[int, Field(ge=0, le=1024)] = 1
    """Threads that decode and crop ahead of the step."""
    checkpoint_every: Positive = 100
    """Steps between checkpoints."""
    log_every: Positive = 10
    """Steps between logged records."""

    @model_validator(mode="after")
    def _scale_of_method(self) -> Distill:
        """The resolved tree names the scale mode in force."""
        return _resolved(self, scale_mode=parse_method(self.method)[1] or self.scale_mode)

    @field_validator("method")
    @classmethod
    def _method(cls, value: str) -> str:
        parse_method(value)
        return value


class Ablation(Section):
    """The grid that `dvc repro` and the ablation pipeline train."""

    methods: Annotated[tuple[str, ...], Field(min_length=1), Once] = (
        "baseline",
        "clip_kd",
        "clip_rd-raw",
        "clip_rd-exp",
    )
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000), Once] = (0,)

    @field_validator("methods")
    @classmethod
    def _methods(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            parse_method(value)
        return values


class Benchmark(Section):
    """Zero-shot evaluation of students and teacher."""

    tasks: str = "data/demo/benchmark"
    """Folder whose subfolders are tasks in CLIP_benchmark's WebDataset layout; local or s3://."""
    names: Annotated[tuple[str, ...], Once] | None = None
    """Tasks to run; null runs all found."""
    protocols: Annotated[tuple[Literal["standard", "paper"], ...], Field(min_length=1), Once] = ("standard", "paper")
    batch_size: Rows = 128
    bootstrap: Many = 1000
    """Resamples behind each interval, the gate's too; fewer than 1000 are for trying out."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    fidelity_samples: Many = 1000
    """Images and captions over which teacher and student geometry are compared."""
    speed: bool = True
    """Measure latency and images per second (a few seconds per model)."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _enough(self) -> Benchmark:
        needed = math.ceil(2 / (1 - self.confidence) - 1 - 1e-9)
        if self.bootstrap < needed:
            raise ValueError(
                f"bootstrap {self.bootstrap} is too few for confidence {self.confidence:g}: {needed} at least"
            )
        return self


class Compare(Section):
    """The comparison of methods."""

    reference: str = "clip_kd"
    """Method to which paired differences are taken."""
    protocol: Literal["standard", "paper"] = "standard"


Margin = Weight | Literal["none"]


class Margins(Section):
    """By how much a candidate may be worse than the champion and still be promoted; `none`: not guarded."""

    tasks: Margin = 5.0
    """Points (0 to 100) of each task's primary metric; the interval of the difference must end above minus that. Far
    below the width of the smallest task's interval nothing is ever promoted: docs/promotion.md."""
    fidelity: Margin = 0.05
    """Of the mean rank correlation of image-text similarities with the teacher's (cross_rank); the same way."""
    latency: Margin = 1.0
    """Share of the champion's median latency: 1 is up to twice as slow. Timings of one machine at two times differ."""
    size: Margin = 0.0
    """Share of the champion's parameters and operations: 0 is exactly as large, or smaller."""


class Promote(Section):
    """The gate before a student becomes the champion."""

    champion: str = ""
    """`models:/<name>` in MLflow's registry at `tracking.uri`, or a folder (local or s3://) that holds the champion;
    empty: there is none, and nothing is promoted."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the interval of the difference of mean scores, which must lie above zero as a whole. A student that is no
    better is promoted with a chance of about half of what lacks to 1."""
    allow_guessing: bool = False
    """Promote a student too whose scores are not above guessing; the decision names it as overridden."""
    margins: Margins = Margins()
    licence: str = ""
    """Licences of the training data for the model card: a text, or a file that holds it."""

    @field_validator("champion")
    @classmethod
    def _place(cls, value: str) -> str:
        if value.startswith("models:") and not re.fullmatch(r"models:/[^/@:]+", value):
            raise ValueError("a model in the registry is written models:/<name>, without a version or an alias")
        return value


class Retrain(Section):
    """What `cliprd retrain` trains."""

    method: str = "clip_rd-exp"
    """As `distill.method`; for `--runner dvc` one of `ablation.methods`."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000), Once] = (0,)
    """The first seed's student is the one that is promoted; further ones tell the gate how much is chance."""

    @field_validator("method")
    @classmethod
    def _method(cls, value: str) -> str:
        parse_method(value)
        return value


class Tracking(Section):
    """MLflow."""

    uri: str = "sqlite:///mlflow.db"
    """Tracking server; empty: none. Credentials come from MLflow's environment variables, never from here."""
    experiment: str = "cliprd"

    @field_validator("uri")
    @classmethod
    def _without_credentials(cls, uri: str) -> str:
        if uri.startswith(("http://", "https://")) and "@" in uri.split("/")[2]:
            raise ValueError("credentials belong into MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN")
        return uri

    def in_pods(self) -> Tracking:
        """The section as a pod can use it: of addresses only a server's, as a file is another one in each pod."""
        return self if self.uri.startswith(("http://", "https://")) else self.model_copy(update={"uri": ""})


Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[kMGTPE]i?)?$")]
"""As Kubernetes writes it: `4`, `500m`, `16Gi`."""


class Toleration(Section):
    """A taint that a step's pod may stand."""

    key: str
    value: str | None = None
    """Null: any."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None


class Secret(Section):
    """A Kubernetes secret whose values a step gets as environment variables."""

    name: str
    keys: Annotated[dict[str, str], Field(min_length=1)]
    """Key in the secret → environment variable, as `AWS_SECRET_ACCESS_KEY` or `MLFLOW_TRACKING_TOKEN`."""


class Volume(Section):
    """A persistent volume claim that every step's pod mounts."""

    claim: str
    path: Annotated[str, Field(pattern="^/.")]
    """Where in the container: data that params.yaml names lies there."""


class Resources(Section):
    """What a step's pod asks for; null: the cluster's default."""

    cpu: Quantity | None = None
    """Cores: `4` or `500m`."""
    memory: Quantity | None = None
    """`16Gi`."""
    accelerator: str | None = None
    """Resource name, such as `nvidia.com/gpu`."""
    accelerators: Annotated[int, Field(ge=0, le=16)] = 0
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    shared_memory: Quantity | None = None
    """Size of `/dev/shm`: `8Gi`; processes that share GPUs' work talk through it, and get one in any case."""
    scratch: Quantity | None = None
    """Size of the volume at `/tmp`, through which data from s3:// passes: `50Gi`; null: the node's own disk."""

    timeout: Positive | None = None
    """Seconds after which the pod is ended, waiting for its image, secrets or volumes included."""

    @model_validator(mode="after")
    def _both(self) -> Resources:
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError("accelerator and accelerators belong together: name the resource and how many")
        return self


STEPS = (
    "plan", "prepare", "teacher", "cache", "merge", "distill", "distill_nodes", "benchmark_teacher", "benchmark",
    "compare", "report", "gate", "promote", "refuse", "record",
)  # fmt: skip


class Kubernetes(Section):
    """How a pipeline's steps run on a cluster; written into the compiled pipeline, ignored by local runs."""

    default: Resources = Resources()
    """For steps not named in `steps`."""
    steps: dict[str, Resources] = {}
    """Step → resources."""
    secrets: tuple[Secret, ...] = ()
    environment: dict[str, str] = {}
    """Environment variables of every step, such as AWS_ENDPOINT_URL; what is secret goes into `secrets`."""
    image_pull_secrets: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    store: Annotated[str, Field(pattern=r"^$|^s3://[^/]+")] = ""
    """s3:// prefix for shards and teacher cache, which then do not pass through Kubeflow's artifacts, and for the work
    of the long steps, which go on from it when their pod is lost; empty: Kubeflow's artifacts only."""
    cache_parts: Few = 1
    """Pods that the teacher cache is embedded in, at most one a shard."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Of a step whose pod has failed, all but the first; network errors are tried again inside every step as well."""
    backoff: Annotated[str, Field(pattern=r"^[1-9]\d*s$")] = "30s"
    """Before the first retry; doubled each time."""
    nodes: Few = 1
    """That train one student together, each as `steps.distill` asks; more than one: by a job of `engine`, and they meet
    in `store`."""
    engine: Literal["trainjob", "pytorchjob"] = "trainjob"
    """Of many nodes: Kubeflow's Trainer 2, or its forerunner, the Training Operator 1."""
    parallelism: Few = 4
    """Most students trained, or parts of the cache embedded, at once; fixed when the pipeline is compiled."""

    @field_validator("environment")
    @classmethod
    def _not_secret(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if re.search("SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY", name, re.IGNORECASE):
                raise ValueError(f"{name} looks like a secret, and this stands in the compiled pipeline; use `secrets`")
        return value

    @field_validator("volumes")
    @classmethod
    def _once(cls, value: tuple[Volume, ...]) -> tuple[Volume, ...]:
        claims = [volume.claim for volume in value]
        if twice := [claim for claim in claims if claims.count(claim) > 1]:
            raise ValueError(f"claim '{twice[0]}' is mounted twice; Kubeflow can do that once")
        return value

    @field_validator("steps")
    @classmethod
    def _known(cls, value: dict[str, Resources]) -> dict[str, Resources]:
        if unknown := sorted(set(value) - set(STEPS)):
            raise ValueError(f"no step '{unknown[0]}'; the steps are {', '.join(STEPS)}")
        return value


class Params(Section):
    """The whole tree, as in params.yaml."""

    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    teacher: Teacher = Teacher()
    cache: Cache = Cache()
    student: Student = Student()
    distill: Distill = Distill()
    ablation: Ablation = Ablation()
    benchmark: Benchmark = Benchmark()
    compare: Compare = Compare()
    promote: Promote = Promote()
    retrain: Retrain = Retrain()
    tracking: Tracking = Tracking()
    kubernetes: Kubernetes = Kubernetes()


def load(path: Path, overrides: Sequence[str] = (), *, written: Mapping[str, str] | None = None) -> Params:
    """Read a params file, apply `a.b=c` overrides, validate.

    A value is YAML, and text where the key takes text: `tracking.uri=` is empty text, `data.csv_separator=,` a comma.
    An empty value is null where the key takes no empty text.

    Args:
        written: override → how it was given, for messages; default: `--set <override>`.

    Raises:
        ParamsError: the file is missing or no YAML; a key is unknown, of a wrong type or out of range. The message
            gives the file or the override, the key's path, what is allowed and the nearest right name.
    """
    tree = document.read(path)
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ParamsError(f"{path} holds a {type(tree).__name__}, not a tree of parameters.", "Mend the file.")
    written = written or {}
    given = [_Override.of(item, written.get(item, f"--set {shortened(item, 100)}")) for item in overrides]
    merged = tree
    for override in given:
        merged = override.applied(merged)
    found, faults = _validated(merged)
    if found is not None:
        for line in without_effect(merged, found):
            print(f"cliprd: {line}", file=sys.stderr)
        return found
    of_file = set(_validated(tree)[1]) if given else set(faults)
    told = [(_blamed(fault, given) if fault not in of_file else str(path), fault.text) for fault in faults]
    places = dict.fromkeys(place for place, _ in told)
    raise ParamsError("; ".join(f"{place}: {_several([t for p, t in told if p == place])}" for place in places) + ".")


def without_effect(given: Mapping[str, Any], params: Params) -> list[str]:
    """A line for each key that `given` sets to another value than its default although nothing reads it."""
    method, kind, nodes = params.distill.method, params.data.kind, params.kubernetes.nodes
    reasons = {
        **({f"data.csv_{key}": f"data.kind = {kind} reads no table" for key in CSV_KEYS} if kind != "csv" else {}),
        **({"teacher.aligned": f"teacher.name = {params.teacher.name}"} if params.teacher.name != "aligned" else {}),
        **({"distill.scale_mode": f"distill.method = {method} decides"} if parse_method(method)[1] else {}),
        **({"distill.max_scale": "scale_mode exp clamps by itself"} if params.distill.scale_mode == "exp" else {}),
        **({"kubernetes.engine": "kubernetes.nodes = 1 needs none"} if nodes == 1 else {}),
    }
    plain = [item.model_dump(mode="json") for item in (Params(), params)]
    lines = []
    for key, reason in reasons.items():
        section, name = key.split(".")
        value = (given.get(section) or {}).get(name)
        unused = plain[key == "distill.scale_mode"][section][name]
        differs = value if not isinstance(value, Mapping) else {k: v for k, v in value.items() if v != unused.get(k)}
        if differs not in (None, {}, unused):
            lines.append(f"{key} = {shortened(str(differs))} has no effect: {reason}.")
    return lines


def validate(tree: Mapping[str, Any], *, where: str) -> Params:
    """Check a plain tree; `where` names its origin in messages."""
    found, faults = _validated(tree)
    if found is None:
        raise ParamsError(f"{where}: {_several([fault.text for fault in faults])}.")
    return found


class _Fault(typing.NamedTuple):
    """Something wrong in a tree: where (keys), and in words."""

    location: tuple[str, ...]
    text: str


def _validated(tree: Mapping[str, Any]) -> tuple[Params | None, list[_Fault]]:
    try:
        document.check(tree)
        return Params.model_validate_json(json.dumps(tree)), []  # JSON: strict, yet lists become tuples
    except DocumentError as error:
        return None, [_Fault((), str(error))]
    except ValidationError as error:
        return None, [_Fault(tuple(map(str, item["loc"])), _explain(item)) for item in error.errors()]


def _several(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - MOST_FAULTS} more" if len(texts) > MOST_FAULTS else ""
    return "; ".join(texts[:MOST_FAULTS]) + more


def check_runs(runs: Sequence[Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Methods and seeds of a pipeline's `runs`, `{"method": ..., "seed": ...}` each.

    Raises:
        ParamsError: there is none, one is no such mapping or stands there twice, or they are not all methods with all
            seeds, which `compare` needs.
    """
    example = "For example [{method: clip_kd, seed: 0}, {method: clip_rd-exp, seed: 0}]"
    if not runs:
        raise ParamsError("runs is empty.", example)
    pairs: list[tuple[str, int]] = []
    for run in runs:
        if not isinstance(run, Mapping) or set(run) != {"method", "seed"}:
            raise ParamsError(f"runs: {run!r} is no run.", f"Each is a method and a seed. {example}")
        found = validate({"distill": dict(run)}, where="runs").distill
        if (found.method, found.seed) in pairs:
            raise ParamsError(f"runs: {run!r} stands there twice.", "Name each method and seed once.")
        pairs.append((found.method, found.seed))
    methods, seeds = (tuple(dict.fromkeys(column)) for column in zip(*pairs, strict=True))
    if absent := [(method, seed) for method in methods for seed in seeds if (method, seed) not in pairs]:
        raise ParamsError(
            f"runs: {absent[0][0]} with seed {absent[0][1]} is not there.", "Train every method with every seed."
        )
    return typing.cast(tuple[str, ...], methods), typing.cast(tuple[int, ...], seeds)


@dataclass(frozen=True)
class _Override:
    """One `a.b=c`."""

    path: tuple[str, ...]
    value: Any
    shown: str

    @classmethod
    def of(cls, item: str, shown: str) -> _Override:
        key, equals, text = item.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise ParamsError(f"{shown}: expected KEY.SUBKEY=VALUE.", "For example --set distill.epochs=3")
        try:
            return cls(path, _value(text, _type_at(path)), shown)
        except DocumentError as error:
            key = shortened(".".join(path))
            raise ParamsError(f"{shown}: the value of '{key}' is not valid: {error}.") from error

    def applied(self, tree: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
        """`tree` with the value in it; what is no mapping on the way is replaced by one."""
        part = self.path[depth]
        if depth + 1 == len(self.path) or depth >= document.MOST_DEEP:
            return {**tree, part: self.value}
        child = tree.get(part)
        return {**tree, part: self.applied(child if isinstance(child, Mapping) else {}, depth + 1)}


def _value(text: str, kind: Any) -> Any:
    """What `text` means for a key of this type: itself where the key takes text, unless in quotes or null; else YAML.

    Raises:
        DocumentError: it is no YAML.
    """
    takes, bare = _takes(kind), text.strip(" ")
    if not bare:
        return next((value for value in (text, "", None) if takes(value)), "")
    structured = bare[0] in "{[" and any(_is_structure(option) for option in typing.get_args(kind))
    literal = bare[0] not in "'\"" and bare not in NULLS and not structured
    return bare if literal and takes(bare) else document.parse(text)


def _is_structure(kind: Any) -> bool:
    return typing.get_origin(kind) is not None or (isinstance(kind, type) and issubclass(kind, BaseModel))


def _takes(kind: Any) -> Callable[[Any], bool]:
    if kind is None:
        return lambda value: False
    adapter = TypeAdapter(kind, config=None if isinstance(kind, type) and issubclass(kind, BaseModel) else _STRICT)

    def takes(value: Any) -> bool:
        try:
            adapter.validate_json(json.dumps(value))
        except ValidationError:
            return False
        return True

    return takes


def _type_at(path: Sequence[str]) -> Any:
    """The type of the key's value; None where there is no such key, or where anything may stand."""
    kind: Any = Params
    for part in path:
        options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        section = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
        mapping = next((o for o in options if typing.get_origin(o) is dict), None)
        if section is not None and part in section.model_fields:
            field = section.model_fields[part]
            kind = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        elif mapping is not None:
            kind = typing.get_args(mapping)[1]
        else:
            return None
        if typing.get_origin(kind) is Annotated and len(path) > 1 and isinstance(part, str) and part != path[-1]:
            kind = typing.get_args(kind)[0]
    return None if kind is Any else kind


def _blamed(fault: _Fault, given: Sequence[_Override]) -> str:
    """The override that the fault is of: the last one on its key's path."""
    for override in reversed(given):
        if all(a == b for a, b in zip(override.path, fault.location, strict=False)):
            return override.shown
    return ", ".join(override.shown for override in given)


def _explain(item: Any) -> str:
    """One pydantic error as: key path, what is wrong, what is allowed, the nearest right name."""
    unknown = item["type"] == "extra_forbidden"
    own = (
        len(item["loc"]) - unknown
    )  # an unknown key is the user's word, whatever it looks like; the others are pydantic's
    steps = ("function-", "constrained-", "literal[")
    location = [str(part) for i, part in enumerate(item["loc"]) if i == own or not str(part).startswith(steps)]
    key = shortened(".".join(location), 200) or "(top level)"
    if unknown:
        siblings = sorted(_section_at(location[:-1]).model_fields)
        near = difflib.get_close_matches(location[-1], siblings, n=1, cutoff=0.5)
        hint = f"did you mean '{'.'.join([*location[:-1], near[0]])}'?" if near else ""
        return f"unknown key '{key}'{'; ' + hint if hint else ''} (allowed here: {', '.join(siblings)})"
    message = item["msg"].removeprefix("Value error, ")
    shown = re.sub(r"(://)[^/@\s]*@", r"\1…@", repr(item["input"]))  # what may be a password stays out of logs
    return f"'{key}' = {shortened(shown)}: {shortened(message, 400)}"


def _section_at(path: Sequence[str]) -> type[Section]:
    section: type[Section] = Params
    for part in path:
        field = section.model_fields.get(part)
        annotation = field.annotation if field else None
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        section = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), section)
    return section


def dump(tree: Params) -> str:
    """The resolved tree as YAML, every key present, in the order of the schema."""
    return document.dump(tree.model_dump(mode="json"), sort_keys=False)


def schema() -> str:
    """JSON schema of params.yaml, for editors (docs/params.schema.json)."""
    return json.dumps(Params.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
