"""The formulas of the paper written as naively as they read, to hold the real ones against. Shapes as in the losses."""

import torch
from torch.nn.functional import cross_entropy, kl_div, linear, log_softmax, normalize

ALL = ("task", "hrd", "icl", "fd", "vrd", "vrd_ce_image", "vrd_ce_text", "xrd")


def kl(student, target):
    """KL(softmax(target) ‖ softmax(student)), rows, mean over rows; the target is detached."""
    target = log_softmax(target.detach(), 1)
    return kl_div(log_softmax(student, 1), target, reduction="batchmean", log_target=True)


def ce(logits):
    return cross_entropy(logits, torch.arange(len(logits)))


def terms(x_image, x_text, s, t_image, t_text, tau, *, cross, image, text, projections=None, project_task=False):
    """Unweighted terms. `projections`: ((weight, bias), (weight, bias)) of image and text."""
    own_image, own_text = normalize(x_image, dim=1), normalize(x_text, dim=1)
    if projections is not None:
        x_image, x_text = linear(x_image, *projections[0]), linear(x_text, *projections[1])
    x_image, x_text = normalize(x_image, dim=1), normalize(x_text, dim=1)
    if project_task:
        own_image, own_text = x_image, x_text
    own, teacher = s * own_image @ own_text.T, tau * t_image @ t_text.T
    a, b = cross * t_image @ x_text.T, cross * t_text @ x_image.T
    v_image, v_text = image * t_image @ x_image.T, text * t_text @ x_text.T
    return {
        "task": (ce(own) + ce(own.T)) / 2,
        "hrd": (kl(own, teacher) + kl(own.T, teacher.T)) / 2,
        "icl": (ce(b.T) + ce(a.T)) / 2,
        "fd": ((x_image - t_image) ** 2).mean() + ((x_text - t_text) ** 2).mean(),
        "vrd": (kl(v_image, v_text) + kl(v_image.T, v_text.T)) / 2,
        "vrd_ce_image": (ce(v_image) + ce(v_image.T)) / 2,
        "vrd_ce_text": (ce(v_text) + ce(v_text.T)) / 2,
        "xrd": (kl(a, b) + kl(b, a) + kl(a.T, b.T) + kl(b.T, a.T)) / 4,
    }
