"""Fast forward passes of the towers, which compute only what one embedding a sequence needs.

Two optimisations, exact in value and gradient:

* Texts are packed: the rows of all texts, each cut at its end-of-text token, are concatenated, so that the layers
  compute no padding. Only attention unpacks them.
* The last block is computed at the pooled position alone (end-of-text or class token): all positions give keys and
  values, but queries, the MLP and the final norm are needed there only.

Shapes: B sequences, L longest of them, T packed rows, W width, H heads, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from open_clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, scaled_dot_product_attention

from cliprd.models.linear import linear, round_rows
from cliprd.models.text import cuttable, encode_text_features, ends, tokenize


class Packing(NamedTuple):
    """Index of the rows of a packed batch.

    Attributes:
        shape: (B, L).
        rows_T: index of each row in the padded batch [B·L]: the texts' rows, ascending, then any padding rows.
        pooled_B: index of each sequence's pooled row in the packed batch.
        seen_BL: True for positions that are not padding; None if there is none.
    """

    shape: tuple[int, int]
    rows_T: Tensor | None
    pooled_B: Tensor
    seen_BL: Tensor | None


def pooled_text_features(model: nn.Module, tokens_BL: Tensor, device: torch.device) -> Tensor:
    """`encode_text_features`, equal in value and gradient; unsupported towers use that function.

    Args:
        model: an open_clip `CLIP` or `CustomTextCLIP` on `device`.
        tokens_BL: `[B, L]`, int64; on the CPU, so that reading the lengths does not synchronise with a GPU.

    Returns:
        `[B, D]` on `device`, attached to the graph.
    """
    tower: Any = getattr(model, "text", model)
    if not (cuttable(model) and _plain(tower.transformer)):
        return encode_text_features(model, tokens_BL.to(device, non_blocking=True))
    inline = tower is model
    last_B = ends(tokens_BL, tower.text_pool_type if inline else tower.pool_type,
                  tower.text_eos_id if inline else tower.eos_id)  # fmt: skip
    seen_BL = torch.arange(tokens_BL.shape[1]) <= last_B[:, None]
    rows_T = seen_BL.flatten().nonzero()[:, 0]
    if device.type == "cpu":  # add unseen padding rows: new shapes are expensive for oneDNN
        padding = (~seen_BL).flatten().nonzero()[:, 0]
        rows_T = torch.cat([rows_T, padding[: round_rows(len(rows_T)) - len(rows_T)]])
    words_T, places_T = tokens_BL.flatten()[rows_T], rows_T % tokens_BL.shape[1]
    packing = Packing(
        (tokens_BL.shape[0], tokens_BL.shape[1]),
        *(t.to(device, non_blocking=True) for t in (rows_T, (last_B + 1).cumsum(0) - 1, seen_BL)),
    )
    dtype = tower.transformer.get_cast_dtype()
    x_TW = tower.token_embedding(words_T.to(device, non_blocking=True)).to(dtype)
    x_TW = x_TW + embedding(places_T.to(device, non_blocking=True), tower.positional_embedding).to(dtype)
    x_BW: Tensor = tower.ln_final(_pooled(tower.transformer, x_TW, packing, causal=True))
    projection = tower.text_projection
    if projection is not None:
        x_BW = projection(x_BW) if isinstance(projection, nn.Linear) else x_BW @ projection
    return x_BW


def pooled_image_features(model: nn.Module, x_B3HW: Tensor) -> Tensor:
    """`model.encode_image`, equal in value and gradient; unsupported towers use that function.

    Returns:
        `[B, D]` before normalisation, attached to the graph.
    """
    tower: Any = model.visual
    if not (
        type(tower) is VisionTransformer
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.output_tokens
        and _plain(tower.transformer)
    ):
        features: Tensor = model.encode_image(x_B3HW)  # type: ignore[operator]
        return features
    x_BLW = tower._embeds(x_B3HW)
    b, length, _ = x_BLW.shape
    packing = Packing((b, length), None, torch.arange(0, b * length, length, device=x_BLW.device), None)
    x_BW: Tensor = tower.ln_post(_pooled(tower.transformer, x_BLW.flatten(0, 1), packing, causal=False))
    return x_BW if tower.proj is None else x_BW @ tower.proj


@torch.no_grad()
def embed_images(model: nn.Module, x_B3HW: Tensor) -> Tensor:
    """`[B, D]` float32, L2-normalised, on the model's device."""
    device = next(model.parameters()).device
    return nn.functional.normalize(pooled_image_features(model, x_B3HW.to(device)).float(), dim=-1)


@torch.no_grad()
def embed_texts(
    model: nn.Module, model_cfg: Mapping[str, Any], texts: Sequence[str], *, folder: Path | None = None
) -> Tensor:
    """`[B, D]` float32, L2-normalised, on the model's device."""
    tokens_BL = tokenize(model_cfg, texts, folder=folder)
    features = pooled_text_features(model, tokens_BL, next(model.parameters()).device)
    return nn.functional.normalize(features.float(), dim=-1)


def _plain(transformer: Any) -> bool:
    """True for the blocks that `_pooled` supports: pre-norm, attention with one joint input projection, no dropout."""
    return type(transformer) is Transformer and not transformer.grad_checkpointing and all(
        type(block) is ResidualAttentionBlock
        and not hasattr(block, "ln_1_kv")
        and block.attn.in_proj_weight is not None
        and block.attn.in_proj_bias is not None
        and block.attn.bias_k is None
        and not block.attn.add_zero_attn
        and not block.attn.dropout
        for block in transformer.resblocks
    )  # fmt: skip


def _pooled(transformer: Any, x_TW: Tensor, packing: Packing, *, causal: bool) -> Tensor:
    """Output of all blocks at the pooled rows, `[B, W]`."""
    *blocks, last = transformer.resblocks
    for block in blocks:
        x_TW = x_TW + block.ls_1(_attention(block.attn, block.ln_1(x_TW), packing, causal=causal))
        x_TW = x_TW + block.ls_2(_mlp(block.mlp, block.ln_2(x_TW)))
    x_BW = _take(x_TW, packing.pooled_B)
    x_BW = x_BW + last.ls_1(_pooled_attention(last.attn, last.ln_1(x_TW), packing))
    out: Tensor = x_BW + last.ls_2(_mlp(last.mlp, last.ln_2(x_BW)))
    return out


def _mlp(mlp: Any, x_TW: Tensor) -> Tensor:
    x_TW = linear(x_TW, mlp.c_fc.weight, mlp.c_fc.bias)
    return linear(mlp.gelu(x_TW), mlp.c_proj.weight, mlp.c_proj.bias)


def _attention(attn: Any, x_TW: Tensor, packing: Packing, *, causal: bool) -> Tensor:
    """Self-attention; `causal` also masks padding, which comes last."""
    (b, length), heads = packing.shape, attn.num_heads
    qkv = _spread(linear(x_TW, attn.in_proj_weight, attn.in_proj_bias), packing)
    q, k, v = qkv.view(b, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    x_BHLd = scaled_dot_product_attention(q, k, v, is_causal=causal)
    x_TW = x_BHLd.transpose(1, 2).reshape(b * length, -1)
    if packing.rows_T is not None:
        x_TW = _take(x_TW, packing.rows_T)
    return linear(x_TW, attn.out_proj.weight, attn.out_proj.bias)


def _pooled_attention(attn: Any, x_TW: Tensor, packing: Packing) -> Tensor:
    """Attention of the pooled rows alone, `[B, W]`, to all rows of their sequences."""
    (b, length), heads, width = packing.shape, attn.num_heads, x_TW.shape[1]
    weight, bias = attn.in_proj_weight, attn.in_proj_bias
    kv = _spread(linear(x_TW, weight[width:], bias[width:]), packing)
    k, v = kv.view(b, length, 2, heads, -1).permute(2, 0, 3, 1, 4)
    q = linear(_take(x_TW, packing.pooled_B), weight[:width], bias[:width]).view(b, heads, 1, -1)
    mask = None if packing.seen_BL is None else packing.seen_BL[:, None, None, :]
    x_BW = scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(b, width)
    return linear(x_BW, attn.out_proj.weight, attn.out_proj.bias)


def _spread(x_TW: Tensor, packing: Packing) -> Tensor:
    """Unpack rows to `[B·L, W]`, with zeros as padding."""
    if packing.rows_T is None:
        return x_TW
    b, length = packing.shape
    return x_TW.new_zeros(b * length, x_TW.shape[1]).index_copy(0, packing.rows_T, x_TW)


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """`x[rows]` of distinct rows."""
    taken: Tensor = _Take.apply(x, rows)  # type: ignore[no-untyped-call]
    return taken


class _Take(torch.autograd.Function):
    """`x[rows]` of distinct rows, whose backward copies instead of adding: faster, and deterministic on a GPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.count = len(x)
        return x.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.count, *grad.shape[1:]).index_copy_(0, rows, grad), None
