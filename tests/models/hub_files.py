"""Small stand-ins for what lies on model hubs: tokenizers, configs of text towers, weights of tags."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import factory, pretrained, timm_model
from torch import nn

WORDS = ["a", "photo", "of", "the", "cat", "dog", "two", "red", "boats", "on", "water", "sitting", "beside"]


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer of words, with the special tokens that transformers' and T5's tokenizers have."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocab = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


def write_text_config(folder: Path, kind: str) -> Path:
    """The config of a text tower of Hugging Face, of two narrow layers."""
    write_tokenizer(folder)
    common = {"model_type": kind, "vocab_size": 30, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    if kind == "m2m_100":
        layers = {
            "d_model": 64, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
            "max_position_embeddings": 128, "is_encoder_decoder": True,
        }  # fmt: skip
    elif kind == "mt5":
        layers = {"d_model": 64, "d_kv": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "is_encoder_decoder": True}
    else:
        layers = {
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "max_position_embeddings": 130, "type_vocab_size": 1,
        }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**common, **layers}))
    return folder


TEXT_TOWERS = {"roberta": "roberta", "xlm-roberta": "xlm-roberta", "facebook/nllb": "m2m_100", "google/mt5": "mt5"}


def shrink(monkeypatch: Any, arch: str, folder: Path) -> None:
    """Have open_clip know `arch` with two narrow layers a tower, and with tokenizers that lie in `folder`."""
    config: dict[str, Any] = copy.deepcopy(open_clip.get_model_config(arch))
    vision, text = config["vision_cfg"], config["text_cfg"]
    if isinstance(vision.get("layers"), list):
        vision |= {"layers": [1, 1, 1, 1], "width": 16}
    elif "layers" in vision:
        vision |= {"layers": 2, "width": 128, "head_width": 64}
    else:
        create = timm_model.timm.create_model
        monkeypatch.setattr(
            timm_model.timm, "create_model", lambda name, **options: create(name, **{**options, **shallow(name)})
        )
    if not vision.get("timm_model_name"):  # timm's may have no projection
        config["embed_dim"] = 64
    text |= {"layers": 2, "width": 64, "heads": 2}
    if name := text.get("hf_tokenizer_name"):
        text["hf_tokenizer_name"] = str(write_tokenizer(folder / "tokenizer"))
        if "vocab_size" in text:
            text["vocab_size"] = 200
        if hf := text.get("hf_model_name"):
            kind = next(kind for start, kind in TEXT_TOWERS.items() if hf.startswith(start))
            text["hf_model_name"] = text["hf_tokenizer_name"] = str(write_text_config(folder / "text", kind))
        assert name
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {"layers": 1, "width": 64, "heads": 2}
    monkeypatch.setitem(factory._MODEL_CONFIGS, arch, config)


def shallow(name: str) -> dict[str, Any]:
    """timm's options for few blocks."""
    if name.startswith("convnext"):
        return {"depths": (1, 1, 1, 1)}
    if name.startswith("fastvit"):
        return {"layers": (1, 1, 1, 1)}
    return {"depth": 2}


def randomised(model: nn.Module) -> nn.Module:
    """Fresh norms and biases are ones and zeros, and activations so small that any two functions agree on them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
            elif "c_fc" in name or "fc1" in name:
                parameter.mul_(4)
    return model


def have_downloaded(monkeypatch: Any, arch: str, tag: str, file: Path) -> None:
    """Have open_clip find the weights of a tag in `file`; what else it knows of the tag stays."""
    facts = {**pretrained._PRETRAINED[arch][tag], "file": str(file)}
    monkeypatch.setitem(pretrained._PRETRAINED[arch], tag, facts)
