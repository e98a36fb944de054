"""Tokenization and text embeddings without padding: tokens after a text's end do not affect its embedding.

Shapes: B texts, L tokens, C the tower's context length, W its width, D the embedding width.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

from cliprd.models.hub import fetching


def cuttable(model: nn.Module) -> bool:
    """True if a text's embedding does not depend on tokens after its end-of-text token.

    That needs a causal mask and pooling at the end-of-text token. It is False for Hugging Face towers, for
    `no_causal_mask`, for a class token appended after the text (CoCa) and for the other poolings.
    """
    tower = getattr(model, "text", None)
    if tower is None:  # open_clip.CLIP keeps its text tower inline
        return getattr(model, "attn_mask", None) is not None and model.text_pool_type in ("argmax", "eos")
    return (
        isinstance(tower, TextTransformer)
        and tower.attn_mask is not None
        and tower.cls_emb is None
        and not tower.use_pad_mask
        and tower.pool_type in ("argmax", "eos")
    )


def encode_text_features(model: nn.Module, tokens_BL: Tensor) -> Tensor:
    """Text embeddings before normalisation, from tokens cut to any length that keeps every end-of-text token.

    Equals `model.encode_text` of the tokens padded to the full context, in value and in gradient; open_clip's own
    function adds the complete positional table, so it needs the full context.

    Args:
        model: an open_clip `CLIP` or `CustomTextCLIP`.
        tokens_BL: `[B, L]`, int64, L at most the context length.

    Returns:
        `[B, D]`, attached to the graph.
    """
    if not cuttable(model):
        features: Tensor = model.encode_text(_padded(model, tokens_BL))  # type: ignore[operator]
        return features
    tower: Any = getattr(model, "text", model)
    length = tokens_BL.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x_BLW = tower.token_embedding(tokens_BL).to(dtype) + tower.positional_embedding[:length].to(dtype)
    x_BLW = tower.transformer(x_BLW, attn_mask=tower.attn_mask[:length, :length])
    inline = tower is model
    pool = tower.text_pool_type if inline else tower.pool_type
    eos = tower.text_eos_id if inline else tower.eos_id
    # The norm works row by row, so pooling first gives the same and norms B rows instead of B·L.
    x_BW: Tensor = tower.ln_final(text_global_pool(x_BLW, tokens_BL, pool, eos_token_id=eos))
    projection = tower.text_projection
    if projection is not None:
        x_BW = projection(x_BW) if isinstance(projection, nn.Linear) else x_BW @ projection
    return x_BW


def _padded(model: nn.Module, tokens_BL: Tensor) -> Tensor:
    tower: Any = getattr(model, "text", model)
    if isinstance(tower, HFTextEncoder):  # takes any length
        return tokens_BL
    context = int(model.context_length)  # type: ignore[arg-type]
    pad = getattr(tower, "pad_id", None)
    if pad is None:
        pad = getattr(getattr(tower, "config", None), "pad_token_id", None) or 0
    return nn.functional.pad(tokens_BL, (0, context - tokens_BL.shape[1]), value=int(pad))


def tokenize(model_cfg: Mapping[str, Any], texts: Sequence[str], *, folder: Path | None = None) -> Tensor:
    """Token ids of `texts`, `[B, L]` int64, cut to the batch's longest text if the tower allows it.

    Args:
        model_cfg: the model's config; its `text_cfg` decides tokenizer, context length and whether cutting is exact.
        texts: any strings; longer ones are truncated to the context, as open_clip does, end-of-text token kept.
        folder: where a Hugging Face tokenizer's files are, for configs that name one.

    Raises:
        RetryableError, InputError, MachineError: a Hugging Face tokenizer cannot be had; see `hub.unreachable`.
    """
    tokens: Tensor = tokenizer_of(model_cfg, folder=folder)(list(texts))
    text = model_cfg["text_cfg"]
    pool = text.get("pool_type", "argmax")
    if not len(tokens) or text.get("no_causal_mask") or text.get("embed_cls") or text.get("hf_model_name"):
        return tokens
    if pool not in ("argmax", "eos"):
        return tokens
    return tokens[:, : int(ends(tokens, pool, text.get("eos_id", 2)).max()) + 1].contiguous()


def ends(tokens_BL: Tensor, pool: str, eos: int) -> Tensor:
    """Position of each text's end-of-text token, `[B]`: where a tower that pools by `argmax` or `eos` looks."""
    return tokens_BL.argmax(dim=1) if pool == "argmax" else (tokens_BL == eos).int().argmax(dim=1)


def tokenizer_of(model_cfg: Mapping[str, Any], *, folder: Path | None = None) -> SimpleTokenizer | HFTokenizer:
    """The tokenizer that `open_clip.get_tokenizer` gives for the same config (each built once a process)."""
    return _tokenizer(json.dumps(dict(model_cfg["text_cfg"]), sort_keys=True), str(folder) if folder else "")


@functools.lru_cache(maxsize=8)
def _tokenizer(text_cfg: str, folder: str) -> SimpleTokenizer | HFTokenizer:
    text = json.loads(text_cfg)
    options = {"context_length": text.get("context_length", 77), **(text.get("tokenizer_kwargs") or {})}
    if not (name := text.get("hf_tokenizer_name")):
        return SimpleTokenizer(**options)
    with fetching(f"The tokenizer '{name}'"):
        return HFTokenizer(folder or name, tokenizer_mode=text.get("tokenizer_mode"), **options)


def tokenizer_id(model_cfg: Mapping[str, Any]) -> str:
    """Identity of the text preprocessing, for fingerprints."""
    text = model_cfg["text_cfg"]
    name = text.get("hf_tokenizer_name") or "open_clip-bpe-49408"
    extra = dict(text.get("tokenizer_kwargs") or {})
    if mode := text.get("tokenizer_mode"):
        extra["mode"] = mode
    options = "".join(f":{key}={extra[key]}" for key in sorted(extra))
    return f"{name}:{text.get('context_length', 77)}{options}"
