"""A lost, damaged or edited `champion.json`: nothing is promoted beside it, and `rollback --to` restores it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from cliprd import cli, storage
from cliprd.artifact import manifest
from cliprd.artifact.folder import put_folder
from cliprd.errors import CliprdError, InputError, ParamsError
from cliprd.promotion import champion, folder_store, gate, package, pointer
from tests.promotion.candidates import ASKED, params
from tests.report import folders

TASKS = [task for task in folders.tasks() if task.name in ("photos", "captions")]
METHODS = ["baseline", "clip_kd", "clip_rd-exp"]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    made = folders.write_grid(tmp_path_factory.mktemp("grid"), METHODS, [0], only=TASKS)
    return made


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "scratch"))
    pointer._report_older.cache_clear()
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}/champion"
    return str(tmp_path / "champion")


def publish(grid, place, method, champion_then="now", **decision):
    held = champion.current(place, params(place)) if champion_then == "now" else None
    decision = {"champion": held.version if held else None, "passed": True, "reason": "", **decision}
    act = champion.publish if decision["passed"] else champion.refuse
    return act(
        place, params(place), grid["students"] / f"{method}-0", [grid["benchmarks"] / f"{method}-0"], decision, ASKED
    )


def version(place):
    return champion.current(place, params(place)).version


def pointer_of(place):
    return storage.join(place, folder_store.POINTER)


def content(place):
    return json.loads(storage.read_bytes(pointer_of(place)))


def remove(url):
    storage.remove(url) if storage.is_s3(url) else Path(url).unlink()


def remove_folder(url):
    if storage.is_s3(url):
        storage.remove(*(storage.join(url, name) for name in storage.list_folder(url)))
    else:
        shutil.rmtree(url)


def command(*words, place, capsys):
    code = cli.main([*words, "--params", os.devnull, "--set", f"promote.champion={place or chr(39) * 2}"])
    error = capsys.readouterr().err
    assert error.count("\n") <= 1 and "defect" not in error, error  # noqa: PT018
    return code, error


def promote(grid, method, output, *words, place, capsys, benchmark=None):
    given = ["--student", str(grid["students"] / f"{method}-0"), "--output", str(output)]
    given += ["--benchmark", str(benchmark or grid["benchmarks"] / f"{method}-0")]
    return command("promote", *given, *words, place=place, capsys=capsys)


def lost(place):
    remove(pointer_of(place))


def edited(change):
    def act(place):
        found = content(place)
        change(found)
        storage.write_bytes(pointer_of(place), json.dumps(found).encode())

    return act


def written(data):
    return lambda place: storage.write_bytes(pointer_of(place), data)


def cut(place):
    storage.write_bytes(pointer_of(place), storage.read_bytes(pointer_of(place))[:-40])


DAMAGE = {
    "lost": lost,
    "empty": written(b""),
    "blank": written(b" \n"),
    "cut": cut,
    "no JSON": written(b"{"),
    "a list": written(b"[]"),
    "null": written(b"null"),
    "another file's JSON": written(b'{"stage": "distill", "files": {}}'),
    "NaN": written(b'{"version": NaN}'),
    "NaN beside all else": lambda place: storage.write_bytes(
        pointer_of(place), storage.read_bytes(pointer_of(place)).replace(b'"benchmarks": 1', b'"benchmarks": NaN')
    ),
    "binary": written(b"\xff\xfe\x00\x01" * 10),
    "deep": written(b"[" * 100_000),
    "a long number": written(b'{"version": ' + b"9" * 5000 + b"}"),
    "another version": edited(lambda found: found.update(version=found["before"][0]["version"])),
    "withdrawn removed": edited(lambda found: found.update(withdrawn=[])),
    "before removed": edited(lambda found: found.update(before=[])),
    "without digest": edited(lambda found: found.pop("digest")),
    "without schema": edited(lambda found: found.pop("schema")),
    "schema as text": edited(lambda found: found.update(schema="1")),
    "schema true": edited(lambda found: found.update(schema=True)),
    "out of the folder": written(b'{"version": "../elsewhere", "benchmarks": 1}'),
    "older, without version": written(b'{"benchmarks": 1}'),
    "older, no benchmark": written(b'{"version": "' + b"a" * 20 + b'", "benchmarks": 0}'),
    "older, marks of another kind": written(b'{"version": "' + b"a" * 20 + b'", "marks": 3}'),
}


@pytest.mark.parametrize(
    ("place", "damage"),
    [*(("folder", damage) for damage in DAMAGE), *(("s3", damage) for damage in ("lost", "empty", "another version"))],
    indirect=["place"],
)
def test_nothing_is_promoted_beside_a_lost_pointer_and_a_rollback_restores_it(grid, place, tmp_path, capsys, damage):
    first = publish(grid, place, "baseline")
    second = publish(grid, place, "clip_kd")
    third = publish(grid, place, "clip_rd-exp")
    champion.rollback(place, params(place), ASKED)
    before = content(place)
    assert (before["schema"], before["version"], before["withdrawn"][0]["version"]) == (1, second, third)
    DAMAGE[damage](place)
    data = storage.read_bytes(pointer_of(place))
    for words in ([], ["--dry-run"]):
        code, error = promote(grid, "baseline", tmp_path / "out", *words, place=place, capsys=capsys)
        assert (code, "cliprd rollback --to" in error) == (3, True), error
    for act in (
        lambda: publish(grid, place, "baseline", champion_then=None),
        lambda: publish(grid, place, "baseline", champion_then=None, passed=False),
    ):
        with pytest.raises(InputError, match="cliprd rollback --to"):
            act()
    assert storage.read_bytes(pointer_of(place)) == data
    code, error = command("rollback", place=place, capsys=capsys)
    assert (code, first in error, second in error, third in error) == (3, True, True, True)
    code, error = command("rollback", "--to", "f" * 20, place=place, capsys=capsys)
    assert (code, "never champion" in error) == (3, True)
    assert command("rollback", "--to", second, place=place, capsys=capsys) == (0, "")
    after = content(place)
    for name in ("version", "marks", "benchmarks"):
        assert after[name] == before[name]
    assert [entry["version"] for entry in after["before"]] == [first]
    assert [(entry["version"], entry["marks"]) for entry in after["withdrawn"]] == [
        (entry["version"], entry["marks"]) for entry in before["withdrawn"]
    ]
    assert version(place) == second
    assert command("rollback", place=place, capsys=capsys)[0] == 0
    assert version(place) == first


def test_a_newer_pointer_is_neither_read_nor_replaced(grid, place, tmp_path, capsys):
    first = publish(grid, place, "baseline")
    edited(lambda found: found.update(schema=2))(place)
    data = storage.read_bytes(pointer_of(place))
    for code, error in (
        promote(grid, "clip_kd", tmp_path / "out", place=place, capsys=capsys),
        command("rollback", "--to", first, place=place, capsys=capsys),
    ):
        assert (code, "has schema 2; this cliprd reads schema 1" in error) == (3, True)
    assert storage.read_bytes(pointer_of(place)) == data


def test_an_older_pointer_is_read_with_a_line_and_gets_a_digest(grid, place, tmp_path, capsys):
    publish(grid, place, "baseline")
    second = publish(grid, place, "clip_kd")

    def older(found):
        del found["schema"], found["digest"]

    edited(older)(place)
    assert version(place) == second
    assert "has no digest" in capsys.readouterr().err
    assert version(place) == second
    assert capsys.readouterr().err == ""
    publish(grid, place, "clip_rd-exp")
    assert {"schema", "digest"} <= content(place).keys()


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe", "socket"])
def test_what_is_no_file_is_refused(grid, tmp_path, capsys, kind):
    import socket

    place = tmp_path / "champion"
    first = publish(grid, str(place), "baseline")
    path, elsewhere = place / folder_store.POINTER, tmp_path / "elsewhere.json"
    path.rename(elsewhere)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            os.chdir(place)
            made.bind(path.name)
    else:
        path.symlink_to(elsewhere if kind == "link" else tmp_path / "gone")
    for words in ((), ("--to", first)):
        code, error = command("rollback", *words, place=place, capsys=capsys)
        assert (code, "Move it away" in error) == (3, True)
    assert promote(grid, "clip_kd", tmp_path / "out", place=place, capsys=capsys)[0] == 3
    path.rmdir() if kind == "folder" else path.unlink()
    assert command("rollback", "--to", first, place=place, capsys=capsys) == (0, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_pointer_that_cannot_be_read_is_refused(grid, tmp_path, capsys):
    place = tmp_path / "champion"
    publish(grid, str(place), "baseline")
    (place / folder_store.POINTER).chmod(0)
    code, error = promote(grid, "clip_kd", tmp_path / "out", place=place, capsys=capsys)
    assert (code, "cannot be read" in error) == (3, True)


def flipped(place, part):
    name = next(iter(manifest.read(storage.join(place, part)).files))
    url = storage.join(place, f"{part}/{name}")
    data = storage.read_bytes(url)
    storage.write_bytes(url, data + b"x")


@pytest.mark.parametrize("part", ["student", "benchmark"])
@pytest.mark.parametrize("how", ["gone", "damaged", "another's"])
def test_a_champion_whose_folder_is_not_what_was_promoted_is_refused(grid, place, tmp_path, capsys, part, how):
    first = publish(grid, place, "baseline")
    second = publish(grid, place, "clip_kd")
    target = storage.join(place, f"{second}/{part}")
    if how == "damaged":
        flipped(place, f"{second}/{part}")
    else:
        remove_folder(target)
    if how == "another's":
        source = grid[f"{part}s"] / "baseline-0"
        put_folder(source, storage.parse(target))
    code, error = promote(grid, "clip_rd-exp", tmp_path / "out", place=place, capsys=capsys)
    assert (code, second in error, "cliprd rollback --to" in error) == (3, True, True), error
    code, error = command("rollback", "--to", second, place=place, capsys=capsys)
    assert (code, second in error) == (3, True)
    assert command("rollback", "--to", first, place=place, capsys=capsys) == (0, "")
    assert version(place) == first


def test_with_no_version_left_the_message_says_so(grid, place, tmp_path, capsys):
    first = publish(grid, place, "baseline")
    publish(grid, place, "clip_kd", passed=False)
    lost(place)
    remove_folder(storage.join(place, first))
    code, error = promote(grid, "clip_rd-exp", tmp_path / "out", place=place, capsys=capsys)
    assert (code, "from a copy, or name another place" in error) == (3, True)


def test_versions_that_were_never_promoted_are_no_champions(grid, place, tmp_path, capsys):
    """A refused student without a champion, and what a killed first promotion leaves: no champion has been lost."""
    publish(grid, place, "baseline", passed=False)
    packed = package.pack(grid["students"] / "clip_kd-0", [grid["benchmarks"] / "clip_kd-0"])
    folder_store.FolderStore(place).put(packed, {"passed": True}, ASKED, None)
    assert champion.current(place, params(place)) is None
    assert promote(grid, "clip_rd-exp", tmp_path / "out", place=place, capsys=capsys)[0] == 0


def test_a_damaged_decision_is_no_reason_to_begin_again(grid, place, tmp_path, capsys):
    first = publish(grid, place, "baseline")
    lost(place)
    storage.write_bytes(storage.join(place, f"{first}/decision.json"), b"{")
    assert promote(grid, "clip_kd", tmp_path / "out", place=place, capsys=capsys)[0] == 3
    assert command("rollback", "--to", first, place=place, capsys=capsys) == (0, "")
    assert version(place) == first


def test_a_champion_of_before_that_is_refused_later_is_remembered(grid, place):
    first = publish(grid, place, "baseline")
    second = publish(grid, place, "clip_kd")
    assert publish(grid, place, "baseline", passed=False) == first
    kept = json.loads(storage.read_bytes(storage.join(place, f"{first}/decision.json")))
    assert (kept["decision"]["passed"], kept["promoted"]["decision"]["champion"]) == (False, None)
    lost(place)
    champion.rollback(place, params(place), ASKED, to=second)
    assert [entry["version"] for entry in content(place)["before"]] == [first]
    assert folder_store.FolderStore(place).promotions().keys() == {first, second}


def test_a_kill_between_the_pointer_and_the_decision_is_made_good(grid, place, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(folder_store.FolderStore, "_write_decision", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish(grid, place, "baseline")
    first = version(place)
    assert folder_store.FolderStore(place).read_decision(first) is None
    assert promote(grid, "baseline", tmp_path / "out", place=place, capsys=capsys)[0] == 0
    assert folder_store.FolderStore(place).read_decision(first)["decision"]["passed"]


def test_two_first_promotions_at_once(grid, place):
    from concurrent.futures import ThreadPoolExecutor

    def attempt(method):
        try:
            return publish(grid, place, method, champion_then=None)
        except InputError as error:
            return error

    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(attempt, METHODS))
    (won,) = [end for end in ended if isinstance(end, str)]
    assert version(place) == won
    assert all("become champion" in str(end) for end in ended if end != won)


@pytest.mark.parametrize("place", ["folder"], indirect=True)
@pytest.mark.parametrize("word", ["", " ", "\t"])
def test_an_empty_version_is_no_version(grid, place, capsys, word):
    publish(grid, place, "baseline")
    second = publish(grid, place, "clip_kd")
    for words in (["--to", word], [f"--to={word}"]):
        with pytest.raises(SystemExit) as end:
            command("rollback", *words, place=place, capsys=capsys)
        error = capsys.readouterr().err
        assert (end.value.code, error.count("\n"), "--to: it is empty" in error) == (2, 1, True)
    with pytest.raises(ParamsError, match="--to is empty"):
        champion.rollback(place, params(place), ASKED, to=word)
    assert version(place) == second


@pytest.mark.parametrize("place", ["folder"], indirect=True)
@pytest.mark.parametrize("word", ["../x", "..", "/", "unknown", "f" * 20, "0", "*", "{first} ", "{short}", "{refused}"])
def test_a_version_that_was_never_champion(grid, place, capsys, word):
    first = publish(grid, place, "baseline")
    second = publish(grid, place, "clip_kd")
    refused = publish(grid, place, "clip_rd-exp", passed=False)
    wanted = word.format(first=first, short=first[:8], refused=refused)
    code, error = command("rollback", "--to", wanted, place=place, capsys=capsys)
    assert (code, "never champion" in error, first in error) == (3, True, True)
    assert version(place) == second


def test_back_to_the_present_champion_and_to_a_withdrawn_one(grid, place, capsys):
    first = publish(grid, place, "baseline")
    second = publish(grid, place, "clip_kd")
    data = storage.read_bytes(pointer_of(place))
    assert command("rollback", "--to", second, place=place, capsys=capsys)[0] == 0
    assert storage.read_bytes(pointer_of(place)) == data
    assert command("rollback", "--to", first, place=place, capsys=capsys)[0] == 0
    assert command("rollback", "--to", second, place=place, capsys=capsys)[0] == 0
    assert version(place) == second


ANSWERS = ["first", "champion", "not better", "withdrawn", "no place"]


@pytest.mark.parametrize(
    ("place", "answer"), [*(("folder", answer) for answer in ANSWERS), ("s3", "champion")], indirect=["place"]
)
@pytest.mark.parametrize("wrong", ["no student", "another's student", "no benchmark", "a student as benchmark"])
def test_student_and_benchmark_belong_together_before_anything(grid, place, tmp_path, capsys, answer, wrong):
    if answer != "first":
        publish(grid, place, "baseline")
        publish(grid, place, "clip_kd")
    method = {"champion": "clip_kd", "withdrawn": "clip_rd-exp"}.get(answer, "baseline")
    if answer == "withdrawn":
        publish(grid, place, "clip_rd-exp")
        champion.rollback(place, params(place), ASKED)
    place = "" if answer == "no place" else place
    before = storage.read_bytes(pointer_of(place)) if place else None
    other = "baseline" if method == "clip_kd" else "clip_kd"
    student, benchmark = grid["students"] / f"{method}-0", grid["benchmarks"] / f"{method}-0"
    student = {"no student": tmp_path / "none", "another's student": grid["students"] / f"{other}-0"}.get(
        wrong, student
    )
    if "benchmark" in wrong:
        benchmark = tmp_path / "none" if wrong == "no benchmark" else student
    given = ["--student", str(student), "--benchmark", str(benchmark), "--output", str(tmp_path / "out")]
    for words in ([], ["--dry-run"]):
        code, error = command("promote", *given, *words, place=place, capsys=capsys)
        assert code == 3, error
    assert not (tmp_path / "out").exists()
    assert not place or storage.read_bytes(pointer_of(place)) == before


def test_the_gate_speaks_of_the_folders_that_belong_together(grid, place, tmp_path, capsys):
    from cliprd.kubeflow import promotion

    sections = {"promote": {"champion": place}}
    out = tmp_path / "gate"
    promotion.gate(sections, str(grid["benchmarks"] / "clip_kd-0"), str(out), run_name="run")
    for act in (promotion.promote, promotion.refuse):
        with pytest.raises(SystemExit) as end:
            act(sections, str(tmp_path / "none"), str(grid["benchmarks"] / "clip_kd-0"), str(out), run_name="run")
        assert end.value.code == 3
    decision = json.loads((out / gate.DECISION).read_text())
    (out / gate.DECISION).write_text(json.dumps({**decision, "passed": True, "champion": None, "candidate": []}))
    folders_of = [str(grid[kind] / "clip_kd-0") for kind in ("students", "benchmarks")]
    with pytest.raises(SystemExit) as end:
        promotion.promote(sections, *folders_of, str(out), run_name="run")
    assert (end.value.code, "decision.json is damaged" in capsys.readouterr().err) == (3, True)
    with pytest.raises(CliprdError):
        package.check(grid["students"] / "baseline-0", [grid["benchmarks"] / "clip_kd-0"])
