"""All terms of CLIP-RD in one module, each matrix multiplied out once and only if a term of weight above 0 needs it.

Six distinct matrices serve all terms (their transposes are read by column), in three pairs:

    L  = s·x_I x_Tᵀ    T  = τ·t_I t_Tᵀ      task, hrd
    A  = σ_×·t_I x_Tᵀ  B  = σ_×·t_T x_Iᵀ    icl, xrd
    V_I = σ_I·t_I x_Iᵀ V_T = σ_T·t_T x_Tᵀ   vrd, vrd_ce_image, vrd_ce_text

x student, t teacher, subscript I image and T text. Source: CLIP-RD (arXiv 2603.25383) and CLIP-KD.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from cliprd.losses.chunked import chunked_statistics
from cliprd.losses.contrastive import contrastive, interactive_contrastive
from cliprd.losses.extra import Term, evaluate, inputs_of
from cliprd.losses.feature import feature_distance
from cliprd.losses.local import local_statistics
from cliprd.losses.relational import kl_divergence
from cliprd.losses.similarity import PairStatistics, Similarity, dense_statistics
from cliprd.losses.weights import VRD_CE, LossWeights

INITIAL_SCALE = math.log(1 / 0.07)
MAX_EXP_SCALE = 100.0  # as open_clip's logit scale
TERMS = ("task", "hrd", "icl", "fd", "vrd", "vrd_ce_image", "vrd_ce_text", "xrd")


class DistillationLoss(nn.Module):
    """Weighted terms of the distillation objective; their sum is what training minimises.

    Args:
        student_dim, teacher_dim: widths of the embeddings.
        weights: of the terms; 0 leaves a term out.
        scale_mode: `raw` multiplies relations by the learned scale itself, as the official code does; `exp` by its
            exponential, clamped at 100. None: as the weights say (see `method_weights`), else `raw`.
        project_task: True gives the official multi-GPU behaviour: where widths differ, task and hrd see projected
            embeddings. False: the unprojected ones, which evaluation sees.
        chunk_size: rows of a matrix held at once, so that memory grows as N·chunk_size; None holds whole matrices. The
            results are equal. Extra terms are always computed at once.
        terms: functions of `weights.extra` by name; those without a weight are not used. Each takes by the names of its
            parameters, of N pairs: `student_image`, `student_text` [N, student_dim], `projected_image`,
            `projected_text` [N, teacher_dim] (through the projections, where there are any), `teacher_image`,
            `teacher_text` [N, teacher_dim], all float32 and L2-normalised, the teacher's without gradient; and
            `student_scale`, `teacher_scale`, scalars, already exp'd. It returns a scalar, a mean over the pairs.

    Attributes:
        cross_scale, image_scale, text_scale: the learned scales, scalars that start at ln(1/0.07); None where no term
            of the weights uses it. `text_scale` is a constant (a buffer) under vrd without vrd_ce, since V_T is then a
            mere target and nothing trains it.
        image_projection, text_projection: Linear from student to teacher width; None where the widths are equal or no
            term of the weights needs them.

    Raises:
        ValueError: a width or chunk_size below 1, an unknown scale_mode or another than that of the weights, all
            weights 0, or an extra term without a function.
        TypeError: a function takes what is none of these.
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        *,
        weights: LossWeights,
        scale_mode: Literal["raw", "exp"] | None = None,
        project_task: bool = False,
        chunk_size: int | None = None,
        terms: Mapping[str, Term] | None = None,
    ) -> None:
        super().__init__()
        if student_dim < 1 or teacher_dim < 1:
            raise ValueError(f"widths must be positive: student_dim {student_dim}, teacher_dim {teacher_dim}")
        if scale_mode not in (None, "raw", "exp"):
            raise ValueError(f"scale_mode {scale_mode!r}: 'raw' or 'exp' is needed")
        if scale_mode and weights.scale_mode not in (None, scale_mode):
            raise ValueError(f"scale_mode {scale_mode!r}: the weights are of a method with {weights.scale_mode!r}")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size {chunk_size}: at least 1, or None for whole matrices")
        if not any(weights.named().values()):
            raise ValueError("all weights are 0: there is nothing to minimise")
        self.student_dim, self.teacher_dim = student_dim, teacher_dim
        self.weights = weights
        self.scale_mode: Literal["raw", "exp"] = scale_mode or weights.scale_mode or "raw"
        self.project_task, self.chunk_size = project_task, chunk_size

        self._extra = {name: _function(name, terms or {}) for name, weight in weights.extra.items() if weight}
        self._inputs = {name: inputs_of(name, term) for name, term in self._extra.items()}
        crossed, vertical = bool(weights.icl or weights.xrd), bool(weights.vrd or weights.vrd_ce)
        self.cross_scale = _scale() if crossed else None
        self.image_scale = _scale() if vertical else None
        self.text_scale: Tensor | None
        if vertical and not weights.vrd_ce:
            self.register_buffer("text_scale", _scale().detach())
        else:
            self.text_scale = _scale() if vertical else None

        projected = any(name.startswith("projected_") for wanted in self._inputs.values() for name in wanted)
        meets_teacher = bool(weights.fd) or crossed or vertical or projected
        meets_teacher = meets_teacher or (project_task and bool(weights.task or weights.hrd))
        self.image_projection: nn.Linear | None = None
        self.text_projection: nn.Linear | None = None
        if meets_teacher and student_dim != teacher_dim:
            self.image_projection = nn.Linear(student_dim, teacher_dim)
            self.text_projection = nn.Linear(student_dim, teacher_dim)

    def forward(
        self,
        student_image: Tensor,
        student_text: Tensor,
        student_scale: Tensor | float,
        teacher_image: Tensor,
        teacher_text: Tensor,
        teacher_scale: Tensor | float,
        *,
        rows: slice | None = None,
    ) -> dict[str, Tensor]:
        """Weighted terms over the (global) batch; gathering across ranks happens outside, before.

        Computed in float32 (float64 if the student's embeddings are), whatever autocast or the inputs' half precision
        say: logits up to 100 have no digits to spare.

        Args:
            student_image, student_text: [N, student_dim], neither projected nor normalised.
            student_scale, teacher_scale: multipliers of the logits, already exp'd.
            teacher_image, teacher_text: [N, teacher_dim], L2-normalised by the caller (taken as they are); no gradient
                flows to them.
            rows: the terms' share of these samples alone, for one process of several: the sum over slices that cover
                the batch is the whole. None: the whole.

        Returns:
            A scalar for each term of weight above 0, among task, hrd, icl, fd, vrd, vrd_ce_image, vrd_ce_text, xrd, and
            the extra ones.

        Raises:
            ValueError: a shape does not fit.
            TypeError: embeddings that are not floating-point tensors, or an extra term that returned no scalar.
        """
        self._check(student_image, student_text, teacher_image, teacher_text)
        with torch.autocast(student_image.device.type, enabled=False):
            exact = torch.float64 if student_image.dtype == torch.float64 else torch.float32
            embeddings = _Embeddings(
                self, student_image.to(exact), student_text.to(exact), teacher_image.to(exact), teacher_text.to(exact)
            )
            own, teachers = (
                torch.as_tensor(s, dtype=exact, device=student_image.device) for s in (student_scale, teacher_scale)
            )
            terms = dict(self._terms(embeddings, own, teachers, rows))
        share = 1.0 if rows is None else len(student_image[rows]) / len(student_image)  # terms are means over samples
        return {name: terms[name] if rows is None else terms[name] * share for name in self.term_names}

    def _terms(
        self, x: _Embeddings, student_scale: Tensor, teacher_scale: Tensor, rows: slice | None
    ) -> Iterator[tuple[str, Tensor]]:
        w = self.weights
        t_image, t_text = x.teacher_image, x.teacher_text
        if w.task or w.hrd:
            own = x.projected if self.project_task else x.unprojected
            student = Similarity(*own, student_scale)
            teacher = Similarity(t_image, t_text, teacher_scale) if w.hrd else None
            pair = self._statistics(student, teacher, rows, a_follows_b=bool(w.hrd))
            if w.task:
                yield "task", w.task * contrastive(pair.a)
            if pair.b is not None and pair.a_to_b is not None:
                yield "hrd", w.hrd * kl_divergence(pair.a, pair.b, pair.a_to_b)
        if w.fd:
            four = (*x.projected, t_image, t_text)
            yield "fd", w.fd * feature_distance(*(four if rows is None else (e[rows] for e in four)))
        if self.cross_scale is not None:
            x_image, x_text = x.projected
            scale = self._multiplier(self.cross_scale, x_image)
            pair = self._statistics(
                Similarity(t_image, x_text, scale),
                Similarity(t_text, x_image, scale),
                rows,
                a_follows_b=bool(w.xrd),
                b_follows_a=bool(w.xrd),
            )
            assert pair.b is not None
            if w.icl:
                yield "icl", w.icl * interactive_contrastive(pair.a, pair.b)
            if pair.a_to_b is not None and pair.b_to_a is not None:
                both = kl_divergence(pair.a, pair.b, pair.a_to_b) + kl_divergence(pair.b, pair.a, pair.b_to_a)
                yield "xrd", w.xrd * both / 2
        if self.image_scale is not None and self.text_scale is not None:
            x_image, x_text = x.projected
            if not w.vrd_ce:
                x_text = x_text.detach()  # V_T is a target only: skip its backward pass
            pair = self._statistics(
                Similarity(t_image, x_image, self._multiplier(self.image_scale, x_image)),
                Similarity(t_text, x_text, self._multiplier(self.text_scale, x_text)),
                rows,
                a_follows_b=bool(w.vrd),
            )
            assert pair.b is not None
            if pair.a_to_b is not None:
                yield "vrd", w.vrd * kl_divergence(pair.a, pair.b, pair.a_to_b)
            if w.vrd_ce:
                yield "vrd_ce_image", w.vrd_ce * contrastive(pair.a)
                yield "vrd_ce_text", w.vrd_ce * contrastive(pair.b)
        for name, term in self._extra.items():
            tensors = {key: x.named(key, student_scale, teacher_scale) for key in self._inputs[name]}
            yield name, w.extra[name] * evaluate(name, term, tensors)

    @property
    def term_names(self) -> tuple[str, ...]:
        """Keys of what `forward` returns, in their order."""
        own = (name for name in TERMS if getattr(self.weights, "vrd_ce" if name in VRD_CE else name))
        return (*own, *self._extra)

    def multipliers(self) -> dict[str, Tensor]:
        """The numbers that multiply the relations now (`exp` applied), detached, by attribute name; only those used."""
        scales = {"cross_scale": self.cross_scale, "image_scale": self.image_scale, "text_scale": self.text_scale}
        return {name: self._multiplier(s, s).detach() for name, s in scales.items() if s is not None}

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """To be called after an optimiser step: in `exp` mode the parameters stay at or below ln 100, since beyond the
        clamp they would get no gradient."""
        if self.scale_mode == "exp":
            for scale in (self.cross_scale, self.image_scale, self.text_scale):
                if scale is not None:
                    scale.clamp_(max=math.log(MAX_EXP_SCALE))

    def _multiplier(self, scale: Tensor, like: Tensor) -> Tensor:
        scale = scale.to(like.dtype)
        if self.scale_mode == "raw":
            return scale
        return scale.clamp(max=math.log(MAX_EXP_SCALE)).exp()  # at the bound itself the gradient still flows

    def _statistics(
        self,
        a: Similarity,
        b: Similarity | None,
        rows: slice | None,
        *,
        a_follows_b: bool = False,
        b_follows_a: bool = False,
    ) -> PairStatistics:
        if rows is not None:
            return local_statistics(
                a, b, rows=rows, chunk_size=self.chunk_size, a_follows_b=a_follows_b, b_follows_a=b_follows_a
            )
        if self.chunk_size is None:
            return dense_statistics(a, b, a_follows_b=a_follows_b, b_follows_a=b_follows_a)
        return chunked_statistics(a, b, chunk_size=self.chunk_size, a_follows_b=a_follows_b, b_follows_a=b_follows_a)

    def _check(self, student_image: Tensor, student_text: Tensor, teacher_image: Tensor, teacher_text: Tensor) -> None:
        given = {
            "student_image": (student_image, self.student_dim),
            "student_text": (student_text, self.student_dim),
            "teacher_image": (teacher_image, self.teacher_dim),
            "teacher_text": (teacher_text, self.teacher_dim),
        }
        n = len(student_image) if isinstance(student_image, Tensor) and student_image.ndim else 0
        for name, (tensor, dim) in given.items():
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                what = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                raise TypeError(f"{name} is {what}: a floating-point tensor [N, {dim}] is needed")
            if tensor.ndim != 2 or tensor.shape[1] != dim:
                raise ValueError(f"{name} has shape {list(tensor.shape)}: [N, {dim}] is needed")
            if len(tensor) != n or n == 0:
                raise ValueError(f"{name} has {len(tensor)} rows, student_image {n}: the same N > 0 is needed")


class _Embeddings:
    """Normalised embeddings (image, text), made when a term first asks: one left out does not even touch its inputs."""

    def __init__(
        self,
        loss: DistillationLoss,
        student_image: Tensor,
        student_text: Tensor,
        teacher_image: Tensor,
        teacher_text: Tensor,
    ) -> None:
        self._loss, self._image, self._text = loss, student_image, student_text
        self.teacher_image, self.teacher_text = teacher_image.detach(), teacher_text.detach()

    @functools.cached_property
    def unprojected(self) -> tuple[Tensor, Tensor]:
        return normalize(self._image, dim=1), normalize(self._text, dim=1)

    @functools.cached_property
    def projected(self) -> tuple[Tensor, Tensor]:
        """In the teacher's space [N, teacher_dim]."""
        if self._loss.image_projection is None or self._loss.text_projection is None:
            return self.unprojected
        return (
            normalize(_project(self._image, self._loss.image_projection), dim=1),
            normalize(_project(self._text, self._loss.text_projection), dim=1),
        )

    def named(self, name: str, student_scale: Tensor, teacher_scale: Tensor) -> Tensor:
        """One of `extra.INPUTS`."""
        match name:
            case "student_image" | "student_text":
                return self.unprojected[name.endswith("text")]
            case "projected_image" | "projected_text":
                return self.projected[name.endswith("text")]
            case "student_scale" | "teacher_scale":
                return student_scale if name == "student_scale" else teacher_scale
            case _:
                return self.teacher_text if name == "teacher_text" else self.teacher_image


def _function(name: str, terms: Mapping[str, Term]) -> Term:
    if name not in terms:
        raise ValueError(
            f"weights.extra has '{name}', terms has no function of that name: give terms={{'{name}': ...}}"
        )
    return terms[name]


def _project(x: Tensor, layer: nn.Linear) -> Tensor:
    return linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def _scale() -> nn.Parameter:
    return nn.Parameter(torch.tensor(INITIAL_SCALE))
