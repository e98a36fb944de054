"""Weights in the layout of Hugging Face's `CLIPModel`, renamed to open_clip's `CLIP`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_NAMES = (
    (r"^(text|vision)_model\.encoder\.layers\.", r"\1:transformer.resblocks."),
    (r"^text_model\.embeddings\.token_embedding\.weight$", "text:token_embedding.weight"),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "text:positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "text:ln_final."),
    (r"^text_projection\.weight$", "text:text_projection"),
    (r"^vision_model\.embeddings\.class_embedding$", "vision:class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.weight$", "vision:conv1.weight"),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "vision:positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "vision:ln_pre."),
    (r"^vision_model\.post_layernorm\.", "vision:ln_post."),
    (r"^visual_projection\.weight$", "vision:proj"),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.", ".attn."),
    (r"^text:", ""),
    (r"^vision:", "visual."),
)
_PART = re.compile(r"(.*\.attn\.)([qkv])_proj\.(weight|bias)$")


def is_hf_clip(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of Hugging Face's `CLIPModel`."""
    return "text_model.embeddings.token_embedding.weight" in state and "visual_projection.weight" in state


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under open_clip's names; a key that is not `CLIPModel`'s keeps its name."""
    renamed: dict[str, Tensor] = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.endswith(".embeddings.position_ids"):
            continue  # 0, 1, 2, …: older versions saved them
        new = name
        for pattern, replacement in _NAMES:
            new = re.sub(pattern, replacement, new)
        if part := _PART.match(new):
            joined.setdefault(f"{part[1]}in_proj_{part[3]}", {})[part[2]] = tensor
        else:
            renamed[new] = tensor.T if name in ("text_projection.weight", "visual_projection.weight") else tensor
    for name, parts in joined.items():
        if sorted(parts) == ["k", "q", "v"]:
            renamed[name] = torch.cat([parts["q"], parts["k"], parts["v"]])
    return renamed
