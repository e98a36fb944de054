"""The Markdown table and the sentences: as strong as the intervals allow, and no stronger."""

import copy

import pytest

from cliprd.report.table import coverage, headline, markdown_table, notes


def interval(value, half=0.01):
    return {"value": value, "low": value - half, "high": value + half}


def scored(value, **more):
    return {"mean": interval(value), "tasks": {"photos": interval(value), "a|b": interval(value / 2)}, **more}


COMPARISON = {
    "protocol": "standard", "reference": "clip_kd", "methods": ["baseline", "clip_kd", "clip_rd-exp"], "seeds": [0],
    "confidence": 0.95, "resamples": 1000,
    "tasks": {
        "photos": {"kind": "classification", "metric": "acc1", "examples": 1234, "chance": 1 / 17},
        "a|b": {"kind": "retrieval", "metric": "mean_r1", "examples": 99, "chance": 1 / 99},
    },
    "protocols": {"standard": {
        "best": "clip_rd-exp", "teacher": scored(0.6),
        "methods": {
            "baseline": scored(0.2, kept=interval(0.33), difference={"mean": interval(-0.15), "tasks": {}}),
            "clip_kd": scored(0.35, kept=interval(0.58)),
            "clip_rd-exp": scored(0.372, kept=None, difference={"mean": interval(0.022), "tasks": {}}),
        },
    }},
}  # fmt: skip


def test_table_in_points_with_intervals():
    lines = markdown_table(COMPARISON).splitlines()
    assert lines[0] == "| model | mean | Δ to clip_kd | of teacher | photos | `a`&#124;`b` |"
    assert lines[2] == "| **teacher** | 60.0 [59.0, 61.0] |  |  | 60.0 | 30.0 |"
    assert lines[3] == "| baseline | 20.0 [19.0, 21.0] | −15.0 [−16.0, −14.0] | 33% | 20.0 | 10.0 |"
    assert lines[4] == "| clip_kd | 35.0 [34.0, 36.0] | reference | 58% | 35.0 | 17.5 |"
    assert lines[5] == "| **clip_rd-exp** | 37.2 [36.2, 38.2] | +2.2 [+1.2, +3.2] | – | 37.2 | 18.6 |"
    assert len({line.replace("\\|", "").count("|") for line in lines[:6]}) == 1


def test_notes_name_protocol_confidence_examples_and_chance():
    text = " ".join(notes(COMPARISON, "standard"))
    for part in ("`standard`", "95%", "1,000 resamples", "photos top-1 accuracy (n = 1,234)", "1.0 to 5.9 points"):
        assert part in text


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([3], "examples only, not training noise"),
        ([0, 1], "tend to be too narrow"),
        (list(range(5)), "and training noise."),
    ],
)
def test_coverage_is_honest_about_seeds(seeds, said):
    assert said in coverage({**COMPARISON, "seeds": seeds})


def test_headline_claims_no_more_than_the_interval():
    assert headline({**COMPARISON, "seeds": [0, 1]}, "standard") == "clip_rd-exp beats clip_kd by 2.2 points."
    weak = copy.deepcopy(COMPARISON)
    weak["protocols"]["standard"]["methods"]["clip_rd-exp"]["difference"]["mean"] = interval(0.005)
    assert headline(weak, "standard") == "clip_rd-exp is ahead of clip_kd by 0.5 points, within the uncertainty."
    one = {**COMPARISON, "seeds": [0]}
    assert headline(one, "standard") == "clip_rd-exp beats clip_kd by 2.2 points, in one training each."
    weak["protocols"]["standard"]["best"] = "clip_kd"
    weak["protocols"]["standard"]["methods"]["clip_rd-exp"]["difference"]["mean"] = interval(-0.005)
    assert headline(weak, "standard") == "clip_kd has the highest mean; clip_rd-exp cannot be told apart from it."
    weak["protocols"]["standard"]["methods"]["clip_rd-exp"]["difference"]["mean"] = interval(-0.05)
    assert headline(weak, "standard") == "clip_kd beats every other method, in one training each."
