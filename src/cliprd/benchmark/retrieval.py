"""Retrieval in both directions, with several captions an image.

Shapes: N images, M captions, D width. A caption retrieves its image if that is among the k nearest images; an image
retrieves its caption if *any* of the image's captions is among its k nearest captions (CLIP's convention, as in
CLIP_benchmark). Ranks count from 0; a tie goes to the candidate with the lower number, so that a model that maps
everything to one point scores at chance level and not 100 %.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliprd.statistics.outcomes import Outcomes

AT = (1, 5, 10)
_BLOCK = 1 << 24  # similarities in memory at a time


def retrieve(image_ND: NDArray[np.float32], text_MD: NDArray[np.float32], owner_M: NDArray[np.int64]) -> Outcomes:
    """`text_to_image_r1 _r5 _r10` (recall over captions) and `image_to_text_r1 _r5 _r10` (over images).

    Outcomes are per image in both directions, because captions of one image are not independent examples. For text to
    image, an outcome is the share of the image's captions that hit, weighted by their number.

    Args:
        image_ND, text_MD: L2-normalised.
        owner_M: the image of each caption; every image has one or more.
    """
    to_image_M = text_to_image_ranks(image_ND, text_MD, owner_M)
    to_text_N = image_to_text_ranks(image_ND, text_MD, owner_M)
    counts_N = np.bincount(owner_M, minlength=len(image_ND)).astype(np.float64)
    values: dict[str, NDArray[np.float32]] = {}
    weights: dict[str, NDArray[np.float64]] = {}
    for k in AT:
        hits_N = np.bincount(owner_M, weights=to_image_M < k, minlength=len(image_ND))
        values[f"text_to_image_r{k}"] = (hits_N / counts_N).astype(np.float32)
        if counts_N.min() != counts_N.max():
            weights[f"text_to_image_r{k}"] = counts_N
    values |= {f"image_to_text_r{k}": (to_text_N < k).astype(np.float32) for k in AT}
    return Outcomes(values, weights, {"text_to_image_rank": to_image_M, "image_to_text_rank": to_text_N})


def text_to_image_ranks(
    image_ND: NDArray[np.float32], text_MD: NDArray[np.float32], owner_M: NDArray[np.int64]
) -> NDArray[np.int32]:
    """`[M]`: number of images ranked before the caption's own."""
    images_DN, texts, owners = torch.from_numpy(image_ND).T, torch.from_numpy(text_MD), torch.from_numpy(owner_M)
    block = max(1, _BLOCK // len(image_ND))
    parts = [
        _rank(texts[start : start + block] @ images_DN, owners[start : start + block, None])
        for start in range(0, len(texts), block)
    ]
    return torch.cat(parts).int().numpy()


def image_to_text_ranks(
    image_ND: NDArray[np.float32], text_MD: NDArray[np.float32], owner_M: NDArray[np.int64]
) -> NDArray[np.int32]:
    """`[N]`: number of captions ranked before the first of the image's own."""
    images, texts_DM, owners = torch.from_numpy(image_ND), torch.from_numpy(text_MD).T, torch.from_numpy(owner_M)
    block = max(1, _BLOCK // len(text_MD))
    parts = []
    for start in range(0, len(images), block):
        similarity = images[start : start + block] @ texts_DM
        numbers = torch.arange(start, start + len(similarity))
        own = similarity.masked_fill(owners[None] != numbers[:, None], -torch.inf)
        parts.append(_rank(similarity, own.argmax(dim=1, keepdim=True)))  # the first in a tie, as in _rank
    return torch.cat(parts).int().numpy()


def _rank(similarity_QK: Tensor, own_Q1: Tensor) -> Tensor:
    """`[Q]`: number of candidates nearer than `own`, or equally near with a lower number."""
    score = similarity_QK.gather(1, own_Q1)
    before = torch.arange(similarity_QK.shape[1]) < own_Q1
    return ((similarity_QK > score) | ((similarity_QK == score) & before)).sum(dim=1)


def nearest(query_QD: NDArray[np.float32], candidate_KD: NDArray[np.float32], top: int) -> NDArray[np.int64]:
    """`[Q, min(top, K)]`: the nearest candidates, best first, ties in the order of their numbers."""
    similarity = torch.from_numpy(query_QD) @ torch.from_numpy(candidate_KD).T
    return torch.sort(similarity, dim=1, descending=True, stable=True).indices[:, :top].numpy()
