"""Exports both towers to ONNX, and checks the files against torch with onnxruntime."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cliprd.errors import CliprdError
from cliprd.extras import optional
from cliprd.files import atomic_write
from cliprd.models.student import encode_image_features

with optional():
    import onnx
    import onnxruntime

IMAGE_FILE = "image.onnx"
TEXT_FILE = "text.onnx"
TOLERANCE = 1e-4
BATCHES = (1, 2, 7)
OPSET = 17  # the first with LayerNormalization; widely supported


class ExportError(CliprdError):
    """No exporter gave a graph that equals the model: a defect in cliprd or a dependency."""


class OnnxImageTower(nn.Module):
    """`[B, 3, S, S]` → `[B, D]`, L2-normalised."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return nn.functional.normalize(encode_image_features(self.model, image), dim=-1)


class OnnxTextTower(nn.Module):
    """int64 tokens `[B, context]`, padded with 0 → `[B, D]`, L2-normalised."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, text: Tensor) -> Tensor:
        """See the class."""
        return nn.functional.normalize(self.model.encode_text(text), dim=-1)  # type: ignore[operator]


def export_onnx(model: nn.Module, folder: Path) -> None:
    """Write `image.onnx` (input `image`, output `image_embedding`) and `text.onnx` (`text`, `text_embedding`).

    The batch size is dynamic; pixels must be normalised as in the model's preprocessing, texts padded to the full
    context. Both give L2-normalised embeddings. Equal models give equal bytes. The model's mode is restored.

    Args:
        model: an open_clip `CLIP` or `CustomTextCLIP`, float32.
        folder: where to write; nothing is written unless both graphs equal torch to 1e-4 for several batch sizes.

    Raises:
        ExportError: neither of torch's exporters gave such a graph.
    """
    device = next(model.parameters()).device
    tower: Any = model.visual
    size = tower.image_size
    side = int(size[0] if isinstance(size, list | tuple) else size)
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Tensor:
        return torch.randn(count, 3, side, side, generator=generator)

    def texts(count: int) -> Tensor:
        return random_tokens(int(model.context_length), int(model.vocab_size), count, generator)  # type: ignore[arg-type]

    with _as_for_inference(model):
        graphs = {
            IMAGE_FILE: _graph(OnnxImageTower(model).eval(), "image", images),
            TEXT_FILE: _graph(OnnxTextTower(model).eval(), "text", texts),
        }
    model.to(device)
    for name, graph in graphs.items():
        with atomic_write(folder / name) as file:
            file.write(graph)


def random_tokens(context: int, vocabulary: int, count: int, generator: torch.Generator) -> Tensor:
    """Random texts of all lengths in open_clip's token format: start, words, end (the highest id), zeros."""
    tokens = torch.randint(1, vocabulary - 2, (count, context), generator=generator)
    tokens[:, 0] = vocabulary - 2
    for row in tokens:
        end = int(torch.randint(2, context, (1,), generator=generator))
        row[end] = vocabulary - 1
        row[end + 1 :] = 0
    return tokens


def _graph(tower: nn.Module, name: str, samples: Callable[[int], Tensor]) -> bytes:
    """The first graph that equals `tower`: by torch's tracing exporter (2 s), else by its newer one (10 s)."""
    problems = []
    for exporter in (_trace, _dynamo):
        try:
            graph = _plain(exporter(tower, samples(2), name))
            worst = max(_difference(graph, tower, samples(count), name) for count in BATCHES)
        except Exception as error:  # the exporters and the runtime raise exceptions of any type
            lines = str(error).strip().splitlines() or [type(error).__name__]
            problems.append(f"{exporter.__name__.strip('_')}: {lines[0]}")
            continue
        if worst <= TOLERANCE:
            return graph
        problems.append(f"{exporter.__name__.strip('_')}: differs from torch by {worst:.1e}")
    raise ExportError(
        f"The {name} tower cannot be exported to ONNX ({'; '.join(problems)}).", "Please report this model's config."
    )


def _trace(tower: nn.Module, sample: Tensor, name: str) -> bytes:
    output = f"{name}_embedding"
    file = io.BytesIO()
    torch.onnx.export(
        tower,
        (sample,),
        file,  # type: ignore[arg-type]
        dynamo=False,
        input_names=[name],
        output_names=[output],
        dynamic_axes={name: {0: "batch"}, output: {0: "batch"}},
        opset_version=OPSET,
    )
    return file.getvalue()


def _dynamo(tower: nn.Module, sample: Tensor, name: str) -> bytes:
    program = torch.onnx.export(
        tower,
        (sample,),
        dynamo=True,
        input_names=[name],
        output_names=[f"{name}_embedding"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _plain(graph: bytes) -> bytes:
    """Remove metadata with source paths, which differ between machines."""
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for value in model.graph.value_info:
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    return bytes(model.SerializeToString(deterministic=True))


def _difference(graph: bytes, tower: nn.Module, sample: Tensor, name: str) -> float:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (actual,) = session.run([f"{name}_embedding"], {name: sample.numpy()})
    expected: Tensor = tower(sample)
    if tuple(actual.shape) != tuple(expected.shape):
        return float("inf")
    difference = (torch.from_numpy(actual) - expected).abs().max()
    return float(difference) if torch.isfinite(difference) else float("inf")


@contextlib.contextmanager
def _as_for_inference(model: nn.Module) -> Iterator[None]:
    """Eval mode, on the CPU, no gradients, no fused attention (exporters cannot see into it), no warnings."""
    training = {module: module.training for module in model.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    model.eval().cpu()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, mode in training.items():
            module.training = mode
