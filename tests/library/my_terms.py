"""Copies of built-in terms, as a user would write them."""

import torch
from torch.nn.functional import cross_entropy, kl_div


def feature(projected_image, projected_text, teacher_image, teacher_text):
    """The built-in `fd`."""
    image, text = (projected_image - teacher_image).square(), (projected_text - teacher_text).square()
    return image.mean() + text.mean()


def contrast(student_image, student_text, student_scale):
    """The built-in `task`."""
    logits = student_scale * student_image @ student_text.T
    target = torch.arange(len(logits))
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def relation(student_image, student_text, teacher_image, teacher_text, student_scale, teacher_scale):
    """The built-in `hrd`."""
    own, target = student_scale * student_image @ student_text.T, teacher_scale * teacher_image @ teacher_text.T
    rows = kl_div(own.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True)
    columns = kl_div(own.T.log_softmax(1), target.T.log_softmax(1), reduction="batchmean", log_target=True)
    return (rows + columns) / 2


def vector(student_image):
    return student_image.sum(dim=1)


def wrong(student_image, labels):
    return student_image.mean() * labels
