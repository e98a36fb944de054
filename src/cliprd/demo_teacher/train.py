"""Contrastive training of the demo teacher's heads on features computed beforehand.

Shapes: N pairs, V views of an image, K captions of a pair, M distinct captions, F pooled features, W the sentence
space, C = 1000 classes, B pairs of a batch, R class rows beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cliprd import params, progress
from cliprd.demo_teacher.heads import AlignedHeads, conse
from cliprd.errors import DivergedError, InputError

WARMUP = 20  # steps
AVERAGE = 0.02  # weight of the newest step in the running mean of the weights, which is what is kept
# Share of the learned change that is kept: it costs little near the training data and gives more away from it
# (weights between zero-shot and fine-tuned, WiSE-FT, arXiv 2109.01903).
LEARNED = 0.85
MAX_CAPTIONS = 8  # of one pair; more are not looked at


@dataclass(frozen=True, kw_only=True)
class CaptionedFeatures:
    """What the heads learn from, all on the CPU.

    Attributes:
        pooled: `[N, V, F]` image features of V views of each image.
        conse: `[N, V, W]` the same views named in the sentence space.
        captions: N tuples of one or more captions.
        distinct: the distinct captions in a fixed order.
        texts: `[M, W]` sentence embeddings of `distinct`.
        rows: `[C, F]` the classifier's rows.
        row_logits: `[C, C]` logits of the prototypes made of the rows by `prototypes`.
        names: `[C, W]` sentence embeddings of the class names.
    """

    pooled: Tensor
    conse: Tensor
    captions: Sequence[Sequence[str]]
    distinct: Sequence[str]
    texts: Tensor
    rows: Tensor
    names: Tensor


def prototypes(rows_CF: Tensor, size: float) -> Tensor:
    """A plausible pooled feature of each class: its classifier row without the negative part, since pooled features
    have none (ReLU6), at the mean length of real ones."""
    return functional.normalize(rows_CF.clamp(min=0), dim=-1) * size


def train_heads(pairs: CaptionedFeatures, settings: params.Aligned) -> tuple[AlignedHeads, dict[str, float]]:
    """Train from `settings.seed`; the same pairs and settings give the same heads on the same machine.

    The loss is CLIP's, with soft targets: every text that is a caption of the image is a positive, never a negative;
    each batch also has a share of the 1000 (class prototype, class name) pairs.

    Returns:
        The heads in eval mode (the running mean of the weights), and facts of the training.

    Raises:
        InputError: fewer than two pairs.
        DivergedError: the loss became NaN.
    """
    total = len(pairs.captions)
    if total < 2:
        raise InputError(
            f"The teacher's heads cannot be trained on {total} pair(s).", "Give the prepare stage more data."
        )
    place = {caption: i for i, caption in enumerate(pairs.distinct)}
    chosen = [[place[c] for c in dict.fromkeys(captions)][:MAX_CAPTIONS] for captions in pairs.captions]
    counts_N = torch.tensor([len(c) for c in chosen])
    # Padded with the first caption, which changes no set of captions.
    captions_NK = torch.tensor([c + [c[0]] * (max(map(len, chosen)) - len(c)) for c in chosen], dtype=torch.int32)
    prototype_CF = prototypes(pairs.rows, float(pairs.pooled.norm(dim=-1).mean()))
    prototype_CW = conse(prototype_CF @ pairs.rows.T, pairs.names)

    batch = min(settings.batch_size, total)
    extra = min(len(prototype_CF), max(1, batch // 4))
    steps = settings.epochs * math.ceil(total / batch)
    dice = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # initialisation and dropout
        heads = AlignedHeads(settings.dim, settings.hidden, settings.dropout)
        heads.fit(pairs.pooled[:, 0], torch.cat([pairs.texts, pairs.names]))
        mean = {name: tensor.clone() for name, tensor in heads.state_dict().items()}
        optimizer = torch.optim.AdamW(_groups(heads, settings.weight_decay), lr=settings.lr, fused=True)
        loss = torch.tensor(0.0)
        bar = progress.bar(total=steps, desc="teacher heads", unit="step")
        step = 0
        for _ in range(settings.epochs):
            for pick_B in torch.randperm(total, generator=dice).split(batch):  # type: ignore[no-untyped-call]
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr * _schedule(step, steps)
                view_B = torch.randint(pairs.pooled.shape[1], (len(pick_B),), generator=dice)
                which_B = (torch.rand(len(pick_B), generator=dice) * counts_N[pick_B]).long()
                caption_B = captions_NK[pick_B, which_B]
                row_R = torch.randperm(len(prototype_CF), generator=dice)[:extra]
                image = heads.image(
                    torch.cat([pairs.pooled[pick_B, view_B], prototype_CF[row_R]]),
                    torch.cat([pairs.conse[pick_B, view_B], prototype_CW[row_R]]),
                )
                text = heads.text(torch.cat([pairs.texts[caption_B], pairs.names[row_R]]))
                loss = _loss(heads.scale * image @ text.T, _positives(captions_NK[pick_B], caption_B, extra))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1
                _average(mean, heads, step)
                bar.update()
            if not math.isfinite(loss.item()):
                raise DivergedError(
                    "The teacher's heads diverged: the loss is not finite.", "Lower teacher.aligned.lr."
                )
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        bar.close()
    heads.load_state_dict(mean)
    heads.blend(LEARNED)
    facts = {"pairs": total, "captions": len(pairs.distinct), "steps": steps, "loss": round(loss.item(), 4)}
    return heads.eval().requires_grad_(False), facts


def _groups(heads: AlignedHeads, decay: float) -> list[dict[str, object]]:
    """The shared projection starts from what is known, so it is not pulled to zero; nor are biases and the scale."""
    free = [p for name, p in heads.named_parameters() if p.ndim < 2 or name.startswith("shared")]
    bound = [p for name, p in heads.named_parameters() if p.ndim >= 2 and not name.startswith("shared")]
    return [{"params": bound, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]


def _schedule(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _positives(captions_BK: Tensor, caption_B: Tensor, extra: int) -> Tensor:
    """`[B + R, B + R]`: True where text j is a caption of image i, or the two images share the caption chosen for i."""
    own_BB = torch.zeros(len(caption_B), len(caption_B), dtype=torch.bool)
    for captions_B in captions_BK.unbind(1):  # one at a time: a [B, B, K] comparison costs ten times as much
        own_BB |= captions_B[:, None] == caption_B[None, :]
    both = own_BB | own_BB.T
    size = len(both) + extra
    positive = torch.eye(size, dtype=torch.bool)
    positive[: len(both), : len(both)] |= both
    return positive


def _loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Cross entropy both ways, the target spread evenly over the positives."""
    positive_ = positive.float()
    target = positive_ / positive_.sum(1, keepdim=True) + positive_ / positive_.sum(0, keepdim=True)
    # -Σ target · log_softmax, both ways at once: each target row sums to 1, so the log of the sum stands alone.
    attraction = (target * logits).sum()
    return 0.5 * (logits.logsumexp(1).sum() + logits.logsumexp(0).sum() - attraction) / len(logits)


@torch.no_grad()
def _average(mean: dict[str, Tensor], heads: AlignedHeads, step: int) -> None:
    weight = max(AVERAGE, 1 / step)  # a plain mean at first, so that the start is soon forgotten
    for name, tensor in heads.state_dict().items():
        mean[name].lerp_(tensor, weight)
