"""The paper's setting, which cannot be trained here, is loaded, validated and run dry."""

from pathlib import Path

import pytest

from cliprd import params
from cliprd.data.count import PairCount
from cliprd.errors import ParamsError
from cliprd.plan import plan

ROOT = Path(__file__).parents[1]


def test_plan_of_the_papers_setting():
    text = plan(params.load(ROOT / "configs/paper.yaml"), PairCount(14_000_000, "as given"))
    assert "image 224x224 -> 384" in text  # student ViT-T-16
    assert "5.60 M image and 40.44 M text parameters" in text
    assert "86.19 M image and 63.43 M text parameters" in text  # teacher ViT-B-16
    assert "terms task, hrd, icl, fd, vrd, vrd_ce_image, vrd_ce_text, xrd; 394,243 parameters" in text
    # 2 projections of (384 + 1) x 512, and 3 scales
    assert 2 * 385 * 512 + 3 == 394_243
    assert "437,504 steps" in text
    assert -(-14_000_000 // 1024) * 32 == 437_504
    assert "26.70 GiB" in text  # 14 M x (1 view + 1 caption) x 512 x 2 bytes
    assert "3.1 times less work" in text


def test_the_demo_setting_needs_no_projection():
    text = plan(params.load(ROOT / "params.yaml"), PairCount(8885, "as given"))
    assert "3 parameters of the loss itself" in text


def test_an_unknown_architecture_is_reported():
    tree = params.validate({"student": {"arch": "ViT-T-61"}}, where="test")
    with pytest.raises(ParamsError, match="ViT-T-16"):
        plan(tree, PairCount(1, "as given"))
