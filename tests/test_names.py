"""Names and messages on every face: nothing in them is hidden, moves a cursor, comes alive, or collides."""

import io
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.errors import InputError
from cliprd.names import key, one_line, shown_streams, visible
from cliprd.report.markdown import fence, literal, text
from tests.hostile import FORBIDDEN, NAMES, check_dead, rendered

PLAIN = [
    "fluent_emoji",
    "clip_rd-exp",
    "score/mean/clip_kd",
    "ViT-B-32 50.5",
    "中文任务",
    "日本語 のタスク",
    "a b.c:d",
]
anything = st.text(st.characters(exclude_characters="\0"), max_size=30)
marks = st.text("ab1 `*_[]()<>!#@|\\~$:&-+=.\n\t/^{}", max_size=24)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_no_name_hides_a_character(name):
    shown = visible(name)
    assert not FORBIDDEN.search(shown)
    assert visible(shown) == shown
    shown.encode("utf-8")
    assert not FORBIDDEN.search(str(InputError(f"{name} is missing.", f"Look at {name}.")))


@given(anything)
def test_visible_text_is_in_one_line_and_stays(name):
    shown = visible(name)
    assert len(shown.splitlines()) <= 1
    assert visible(shown) == shown
    assert json.loads(f'"{shown}"' if "\\" not in name and '"' not in name else '""') in (name, "")


@pytest.mark.parametrize("name", PLAIN)
def test_ordinary_names_stay_as_they_are(name):
    assert visible(name) == name
    assert key(name) == name


@pytest.mark.parametrize("name", ["می\u200cخواهم", "👩\u200d👩\u200d👧", "क्\u200dष"])
def test_joiners_are_kept_where_the_script_needs_them(name):
    assert visible(name) == name
    assert visible("a\u200db\u200c") == "a\\u200db\\u200c"


def test_a_librarys_lines_become_one():
    assert one_line("first:\n    second\x1b[0m\n") == "first: second\\u001b[0m"


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_no_name_is_interpreted_in_markdown(name):
    seen = " ".join(visible(name).split())
    for markdown, shown in ((text(name), seen), (literal(name), visible(name))):
        page = check_dead(f"{markdown}\n")
        assert "".join(page.plain).strip() or page.code
        assert "".join(page.tags).replace("code", "") == "p"
        cells = check_dead(f"| a | b | c |\n|---|---|---|\n| {markdown} | {markdown} | end |\n").cells
        assert [re.sub(" +", " ", cell).strip() for cell in cells[3:]] == [re.sub(" +", " ", shown).strip()] * 2 + [
            "end"
        ]


@given(marks)
def test_no_combination_of_marks_is_interpreted(name):
    page = check_dead(f"{text(name)}\n\n| {text(name)} | {literal(name)} |\n|---|---|\n| x | {text(name)} |\n")
    expected = " ".join(visible(name).split())
    assert page.cells[0].strip() == page.cells[3].strip() == expected
    assert set(page.tags) <= {"p", "code", "table", "thead", "tbody", "tr", "th", "td"}


@given(st.lists(marks, min_size=1, max_size=4))
def test_no_line_ends_a_fence(names):
    body = "\n".join(map(visible, names))
    page = rendered(f"{fence(body, 'text')}\n\nafter\n")
    assert page.tags == ["pre", "code", "p"]
    assert page.code == [f"{body}\n"]


def test_messages_stay_readable_in_markdown():
    assert text("+2.00 [+1.00, +3.00] points (n = 1,234)") == "+2.00 \\[+1.00, +3.00\\] points (n = 1,234)"
    assert text("see http://x/y, then fluent_emoji.") == "see `http://x/y`, then fluent_emoji."


@settings(deadline=None)  # the first example imports MLflow
@given(st.lists(st.one_of(anything, st.sampled_from(list(NAMES.values()))), unique=True, max_size=20))
def test_keys_are_valid_for_mlflow_and_distinct(names):
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    names = list(dict.fromkeys(name.replace("/", "") for name in names))
    keys = [key(f"score/{name}/acc1") for name in names]
    assert len(set(keys)) == len(names)
    for one in keys:
        _validate_metric_name(one)
        _validate_param_name(one)
        assert len(one.split("/")) == 3


def test_what_is_printed_reaches_the_terminal_without_control_characters(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with shown_streams():
        print("a\x1b[31m\u202eb\tc")
        sys.stdout.writelines(["d\re\n", "\rbar 1\n"])
        sys.stdout.write("\x1b[A")
    assert out.getvalue() == "a\\u001b[31m\\u202eb\tc\nd\\re\n\rbar 1\n\x1b[A"
    assert sys.stdout is out


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_command_names_a_hostile_folder_in_one_clean_line(name, tmp_path, capsys):
    from cliprd import cli

    monkey = ["lineage", str(tmp_path / name), "--params", str(tmp_path / "none.yaml")]
    wrong = ["params", "--set", f"data.samples_per_shard={name}: [x"]
    for arguments in (["lineage", str(tmp_path / name)], monkey, wrong):
        try:
            code = cli.main(arguments)
        except SystemExit as error:
            code = error.code
        captured = capsys.readouterr()
        assert code in (2, 3), (arguments, captured)
        assert not FORBIDDEN.search((captured.out + captured.err).replace("\n", "").replace("\t", ""))
        errors = [line for line in captured.err.splitlines() if "error: " in line]
        assert len(errors) == 1, captured.err
        assert captured.err.splitlines()[-1] == errors[0]


def test_an_ascii_console_accepts_every_line(tmp_path):
    command = [sys.executable, "-m", "cliprd.cli", "params", "--set", "data.path=é→\u202e"]
    (tmp_path / "params.yaml").write_text("{}")
    ran = subprocess.run(
        command, capture_output=True, env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin"}, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.isascii()
