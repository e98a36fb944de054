"""The report: what a comment shows, for every ending, and nothing that comes alive in one."""

import re

import pytest

from cliprd.report.charts.forest import spread
from cliprd.retrain import comment, pictures
from cliprd.retrain.report import ENDINGS, render
from tests.hostile import check_dead


def interval(value, low, high):
    return {"value": value, "low": low, "high": high}


def report(**changed):
    decision = {
        "passed": True,
        "verdict": "better",
        "reason": "+2.00 [+1.00, +3.00] points to the champion",
        "champion": "1",
        "confidence": 0.95,
        "protocol": "standard",
        "covers": "examples",
        "mean": interval(0.02, 0.01, 0.03),
        "tasks": {"birds": interval(0.05, 0.03, 0.07), "ships": interval(-0.01, -0.04, 0.02)},
        "guards": [
            {"name": "ships", "kind": "tasks", **interval(-0.01, -0.04, 0.02), "margin": 0.03, "ok": False, "note": ""}
        ],
        "notes": [],
    }
    scores = {"mean": interval(0.5, 0.4, 0.6), "tasks": {name: interval(0.5, 0.4, 0.6) for name in ("birds", "ships")}}
    return {
        "ending": "promoted",
        "why": decision["reason"],
        "runner": "dvc",
        "method": "clip_kd",
        "seeds": [0],
        "place": "models:/mine",
        "inputs": "1" * 64,
        "changes": [{"kind": "data", "what": "00001.tar", "before": None, "after": "a" * 64}],
        "notes": [],
        "stages": None,
        "champion": "1",
        "version": "2",
        "decision": decision,
        "scores": {"candidate": scores, "champion": scores, "examples": {"birds": 100, "ships": 50}},
        "pushed": "pushed to DVC's remote 'store'",
        "git": {"revision": "0123456789abcdef", "changed": False},
        "asked_by": {"who": "somebody", "what": "by hand"},
        **changed,
    }


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_has_its_headline_and_the_reason(ending):
    decided = (
        {} if ending in ("promoted", "refused", "passed") else {"decision": None, "scores": None, "why": "so it is"}
    )
    text = render(report(ending=ending, **decided))
    assert text.startswith(f"## Retraining: {ENDINGS[ending]}\n")
    assert ("So it is." if decided else "+2.00 \\[+1.00, +3.00\\] points to the champion.") in text
    assert "| data | `00001.tar` | – | `aaaaaaaaaaaa` |" in text


def test_it_has_the_table_the_pictures_and_the_gates_figures():
    text = render(report())
    assert "| birds | 50.0 [40.0, 60.0] | 50.0 [40.0, 60.0] | +5.0 [+3.0, +7.0] | 100 |" in text
    assert pictures.forest({"birds": interval(0.05, 0.03, 0.07)}).splitlines()[0].startswith("birds")
    assert "```mermaid\nxychart-beta" in text
    assert "<details open><summary>The gate's figures: 1 of 1 guards broken" in text
    assert "Version `2` is the champion in `models:/mine`" in text


def test_a_candidate_without_a_champion_or_without_scores_here_is_told_too():
    first = report(champion=None)
    first["scores"]["champion"] = None
    for name in ("mean", "tasks", "guards"):
        del first["decision"][name]
    assert "| birds | – | 50.0 [40.0, 60.0] | – | 100 |" in render(first)
    assert "### Scores" not in render(report(scores=None))


@pytest.mark.parametrize("above", [True, False])
def test_without_guards_the_standing_and_the_notes_are_shown_all_the_same(above):
    told = report(ending="passed" if above else "refused")
    tasks = {"birds": {"guessing": 0.1, "majority": 0.2, "above_guessing": above}}
    standing = {"mean": interval(0.3, 0.2, 0.4), "floor": 0.25, "above_guessing": above, "tasks": tasks}
    told["decision"] |= {"guards": [], "standing": standing, "overrides": [], "notes": ["One seed a side."]}
    text = render(told)
    assert "above guessing: 30.0 " in text
    assert ("not above guessing: 30.0" in text) is not above
    assert ("<details open>" in text) is not above
    assert "One seed a side." in text


def test_a_decision_without_its_tasks_is_reported_by_its_mean():
    """Of a run on a cluster with very many tasks, whose note beside the champion has no place for them."""
    told = report(scores=None)
    for name in ("tasks", "guards", "notes", "confidence", "covers"):
        del told["decision"][name]
    assert "mean  " in render(told)


def test_names_and_messages_do_not_come_alive_in_a_comment():
    evil = "a|b`c`\n# [x](http://x) <img src=x> @everyone ![p](http://y) *z*"
    told = report(changes=[{"kind": "data", "what": evil, "before": evil, "after": None}], notes=[evil], why=evil)
    told["decision"] |= {"reason": evil, "notes": [evil]}
    told["decision"]["guards"][0] |= {"name": evil, "note": evil}
    text = render(told)
    assert "\n# " not in text
    for line in text.splitlines():
        if line.startswith(("| data", "| tasks: ")):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5
    check_dead(text)


def test_thousands_of_new_shards_are_not_thousands_of_rows():
    changes = [{"kind": "data", "what": f"{n:05d}.tar", "before": None, "after": "b" * 64} for n in range(3000)]
    text = render(report(changes=changes))
    assert "… and 2960 more" in text
    assert len(text) < 10_000


def test_the_forest_is_to_scale():
    entries = {
        "up": interval(0.04, 0.02, 0.06),
        "none": interval(0.0, -0.02, 0.02),
        "down": interval(-0.06, -0.06, -0.06),
    }
    *lines, axis = pictures.forest(entries).splitlines()
    zero = axis.index("0")
    up, none, down = lines
    assert zero < up.index("├") < up.index("●") < up.index("┤")
    assert none.index("├") < none.index("●") == zero < none.index("┤")
    assert down.index("●") < zero == down.index("┆")
    assert abs((up.index("●") - zero) - 2 * (up.index("├") - zero)) <= 1
    assert up.endswith(spread(entries["up"], sign=True))


def test_the_diagram_holds_what_can_be_compared():
    side = {"tasks": {"birds": interval(0.5, 0.4, 0.6), 'ships"]': interval(0.99, 0.9, 1.0)}}
    both = pictures.bars({"candidate": side, "champion": {"tasks": {"birds": interval(0.25, 0.2, 0.3)}}})
    assert 'x-axis ["birds"]' in both
    assert "bar [50.0]\n    line [25.0]" in both
    alone = pictures.bars({"candidate": side, "champion": None})
    assert 'x-axis ["birds", "ships"]' in alone
    assert "0 --> 100" in alone
    assert "line" not in alone.splitlines()[-1]


@pytest.mark.parametrize("name", ["birds", "a ``` b", "```````"])
def test_a_comment_that_is_cut_within_a_block_of_code_ends_it(name, monkeypatch):
    told = report()
    told["decision"]["tasks"] = {f"{name} {n}": interval(0.05, 0.03, 0.07) for n in range(40)}
    whole = render(told)
    for length in range(400, len(whole), 97):
        monkeypatch.setattr(comment, "LONGEST", length)
        page = check_dead(comment.body(whole, "").removeprefix(comment.MARK))
        assert "rest is in the run" in page.text, length
