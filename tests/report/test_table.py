"""The Markdown table and the sentences: as strong as the intervals allow, and no stronger."""

import copy

import pytest

from cliprd.report import verdicts
from cliprd.report.charts.forest import spread
from cliprd.report.table import coverage, markdown_table, notes

ABOVE = {"mean": True, "tasks": {"photos": True, "a|b": True}}
BELOW = {"mean": False, "tasks": {"photos": True, "a|b": False}}


def interval(value, half=0.01):
    return {"value": value, "low": value - half, "high": value + half}


def scored(value, **more):
    tasks = {"photos": interval(value), "a|b": interval(value / 2)}
    return {"mean": interval(value), "tasks": tasks, "above_guessing": ABOVE, **more}


def difference(value, covers="examples"):
    return {"mean": interval(value), "tasks": {}, "covers": covers}


COMPARISON = {
    "protocol": "standard", "reference": "clip_kd", "methods": ["baseline", "clip_kd", "clip_rd-exp"], "seeds": [0],
    "confidence": 0.95, "resamples": 1000, "interval_covers": "examples",
    "tasks": {
        "photos": {"kind": "classification", "metric": "acc1", "examples": 1234, "chance": 1 / 17},
        "a|b": {"kind": "retrieval", "metric": "mean_r1", "examples": 99, "chance": 1 / 99},
    },
    "protocols": {"standard": {
        "headline": "Somebody won.", "best": "clip_rd-exp", "leaders": ["clip_rd-exp"], "teacher": scored(0.6),
        "floor": {"mean": 0.1, "tasks": {
            "photos": {"guessing": 1 / 17, "majority": 0.19}, "a|b": {"guessing": 1 / 99, "majority": 1 / 99},
        }},
        "methods": {
            "baseline": scored(0.2, kept=interval(0.33), difference=difference(-0.15), verdict="worse"),
            "clip_kd": scored(0.35, kept=interval(0.58)),
            "clip_rd-exp": scored(0.372, kept=None, difference=difference(0.022), verdict="better"),
        },
    }},
}  # fmt: skip


def block(**methods):
    """The comparison's block, with other differences: method → (value, covers)."""
    found = copy.deepcopy(COMPARISON["protocols"]["standard"])
    for method, (value, covers) in methods.items():
        entry = found["methods"][method.replace("_exp", "-exp")]
        entry["difference"] = difference(value, covers)
        entry["verdict"] = "better" if value > 0.01 else "worse" if value < -0.01 else "open"
    return found


def below(found, *models):
    for model in models:
        entry = found["teacher"] if model == "teacher" else found["methods"][model]
        entry["above_guessing"] = BELOW
    return found


def test_table_in_points_with_intervals():
    lines = markdown_table(COMPARISON).splitlines()
    assert lines[0] == "| model | mean | Δ to clip_kd | of teacher | photos | `a`&#124;`b` |"
    assert lines[2] == "| **teacher** | 60.0 [59.0, 61.0] |  |  | 60.0 | 30.0 |"
    assert lines[3] == "| baseline | 20.0 [19.0, 21.0] | −15.0 [−16.0, −14.0] | 33% | 20.0 | 10.0 |"
    assert lines[4] == "| clip_kd | 35.0 [34.0, 36.0] | reference | 58% | 35.0 | 17.5 |"
    assert lines[5] == "| **clip_rd-exp** | 37.2 [36.2, 38.2] | +2.2 [+1.2, +3.2] | – | 37.2 | 18.6 |"
    assert lines[6] == "| guessing | 3.4 |  |  | 5.9 | 1.0 |"
    assert lines[7] == "| most frequent answer | 10.0 |  |  | 19.0 | 1.0 |"
    assert lines[9] == "Somebody won."
    assert len({line.replace("\\|", "").count("|") for line in lines[:8]}) == 1


def test_bold_is_what_is_not_significantly_below_the_best_and_above_guessing():
    found = copy.deepcopy(COMPARISON)
    found["protocols"]["standard"]["leaders"] = ["clip_kd", "clip_rd-exp"]
    lines = markdown_table(found).splitlines()
    assert [line.split(" ")[1] for line in lines[3:6]] == ["baseline", "**clip_kd**", "**clip_rd-exp**"]
    below(found["protocols"]["standard"], "clip_kd", "clip_rd-exp")
    lines = markdown_table(found).splitlines()
    assert lines[4].startswith("| clip_kd | (35.0 [34.0, 36.0]) |")
    assert lines[4].endswith("| 35.0 | (17.5) |")
    assert "**" not in "".join(lines[3:6])


def test_notes_have_protocol_confidence_examples_and_number_of_differences():
    text = markdown_table(COMPARISON)
    for part in ("`standard`", "95%", "1,000 resamples", "photos top-1 accuracy (n = 1,234)", "up to 10% of such"):
        assert part in text
    assert "99.9% intervals" in markdown_table({**COMPARISON, "confidence": 0.999})
    assert "without correction" not in " ".join(notes({**COMPARISON, "methods": ["a", "b"]}, "In parentheses"))


@pytest.mark.parametrize(
    ("seeds", "covers", "said"),
    [
        ([3], "examples", "about these trainings, not methods"),
        ([0, 1], "examples", "training noise is unknown"),
        ([0, 1], "examples and seeds", "Student's t"),
    ],
)
def test_the_coverage_note_matches_the_seeds(seeds, covers, said):
    assert said in coverage({**COMPARISON, "seeds": seeds, "interval_covers": covers})


SEEDS, ONE = "examples and seeds", "examples"


@pytest.mark.parametrize(
    ("value", "covers", "said", "badge"),
    [
        (0.022, SEEDS, "clip_rd-exp beats clip_kd by 2.2 points.", ("better", "clear")),
        (
            0.022, ONE, "This clip_rd-exp training beats this clip_kd training by 2.2 points.",
            ("open", "these trainings"),
        ),
        (0.005, SEEDS, "clip_rd-exp is ahead of clip_kd by 0.5 points, within the uncertainty.", ("open", "undecided")),
        (
            0.005, ONE,
            "This clip_rd-exp training is ahead of this clip_kd training by 0.5 points, within the uncertainty.",
            ("open", "undecided"),
        ),
    ],
)  # fmt: skip
def test_headline_and_badge_claim_no_more_than_the_interval(value, covers, said, badge):
    found = block(clip_rd_exp=(value, covers))
    assert verdicts.headline(found, "clip_kd") == said
    assert verdicts.badge(found, "clip_rd-exp") == badge


@pytest.mark.parametrize(
    ("value", "covers", "said"),
    [
        (-0.005, SEEDS, "clip_kd has the highest mean; clip_rd-exp cannot be told apart from it."),
        (-0.005, ONE, "This clip_kd training has the highest mean; that of clip_rd-exp cannot be told apart from it."),
        (-0.05, SEEDS, "clip_kd beats every other method here."),
        (-0.05, ONE, "This clip_kd training beats those of every other method here."),
    ],
)
def test_headline_of_a_reference_that_is_best(value, covers, said):
    found = block(clip_rd_exp=(value, covers), baseline=(-0.15, covers))
    found["best"] = "clip_kd"
    assert verdicts.headline(found, "clip_kd") == said
    assert verdicts.badge(block(clip_rd_exp=(-0.05, SEEDS)), "clip_rd-exp") == ("worse", "clear")


def equal(found, *methods):
    for method in methods:
        found["methods"][method]["difference"]["mean"] = interval(0.0, 0.0)
    return found


@pytest.mark.parametrize("best", ["clip_kd", "clip_rd-exp"])
@pytest.mark.parametrize(("covers", "who"), [(SEEDS, "clip_rd-exp and clip_kd"), (ONE, "clip_rd-exp training and")])
def test_equal_students_are_not_ahead_of_each_other(best, covers, who):
    found = equal(block(clip_rd_exp=(0.0, covers), baseline=(0.0, covers)), "clip_rd-exp", "baseline")
    found["best"] = best
    said = verdicts.headline(found, "clip_kd")
    assert said.endswith("have the same mean.")
    assert "ahead" not in said
    assert "highest" not in said
    if best != "clip_kd":
        assert who in said


def test_a_difference_below_a_tenth_is_not_called_zero():
    found = block(clip_rd_exp=(0.0, SEEDS))
    found["methods"]["clip_rd-exp"]["difference"]["mean"] = {"value": 0.0003, "low": 0.0001, "high": 0.0005}
    assert verdicts.headline(found, "clip_kd") == "clip_rd-exp beats clip_kd by less than 0.1 points."
    assert spread(interval(0.0004, 0.0003), sign=True) == "+0.0 [+0.0, +0.1]"
    assert spread({"value": 0.01, "low": 0.0, "high": 0.02}, sign=True) == "+1.0 [0.0, +2.0]"  # zero is in


def test_seeds_with_the_same_mean_are_named_beside_others():
    found = copy.deepcopy(COMPARISON) | {"seeds": [0, 1], "interval_covers": SEEDS}
    for method, covers in (("baseline", SEEDS), ("clip_kd", ONE), ("clip_rd-exp", SEEDS)):
        found["protocols"]["standard"]["methods"][method]["covers"] = covers
    assert coverage(found).endswith("Seeds with the same mean, which show no training noise: clip_kd.")


def test_no_method_is_best_if_there_is_nothing_to_distil():
    found = copy.deepcopy(COMPARISON)
    below(found["protocols"]["standard"], "teacher")
    assert "**" not in "".join(markdown_table(found).splitlines()[3:6])


def test_there_is_no_winner_if_no_method_is_above_guessing():
    students = ("baseline", "clip_kd", "clip_rd-exp")
    found = below(block(clip_rd_exp=(0.022, SEEDS)), "teacher")
    assert verdicts.headline(found, "clip_kd").startswith(
        "Nothing to distil: the teacher is not above guessing: 60.0 ["
    )
    assert verdicts.badge(found, "clip_rd-exp") == ("open", "nothing to distil")
    found = below(block(clip_rd_exp=(0.022, SEEDS)), *students)
    assert verdicts.headline(found, "clip_kd").startswith("Nothing to promote: no student is above guessing;")
    assert verdicts.badge(found, "clip_rd-exp") == ("open", "nothing to promote")
    found = below(block(clip_rd_exp=(0.022, SEEDS)), "clip_rd-exp")
    assert verdicts.headline(found, "clip_kd").endswith("not every training of it is above guessing.")
    assert verdicts.badge(found, "clip_rd-exp") == ("open", "not above guessing")
