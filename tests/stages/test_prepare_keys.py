"""Keys over several sources: other content under the same key is kept, the same content is a duplicate."""

import hashlib
import json

import pytest

from cliprd.data.shards import ShardSet
from cliprd.errors import InputError
from cliprd.params import Params
from cliprd.stages import prepare
from tests.data.pictures import pairs, png, write_tar


def run(path, output, **options):
    data = {"path": str(path), "max_bad_fraction": 1.0, "samples_per_shard": 2, **options}
    return prepare.run(Params.model_validate({"data": data}), {}, output)


def keys(folder):
    shards = ShardSet.open(folder)
    return [sample.key for shard in shards.shards for sample in shards.read(shard)]


def reasons(folder):
    return [json.loads(line)["reason"] for line in (folder / "rejected.jsonl").read_text().splitlines()]


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.tar"))}


def other(count, seed=100):
    return [m for i in range(count) for m in ((f"{i:09d}.png", png(seed + i)), (f"{i:09d}.txt", f"other {i}".encode()))]


def test_two_sets_with_the_same_keys(tmp_path):
    write_tar(tmp_path / "cc3m/00000.tar", pairs(3))
    write_tar(tmp_path / "cc12m/00000.tar", other(3))
    write_tar(tmp_path / "cc12m/00001.tar", pairs(2, 50))
    made = run(f"{tmp_path}/{{cc3m,cc12m}}/*.tar", tmp_path / "out")
    assert (made.facts["samples"], made.facts["rejected"]) == (8, 0)
    found = keys(tmp_path / "out")
    assert found[:3] == [f"{i:09d}" for i in range(3)]
    assert all(key.startswith(f"{i:09d}-") for i, key in enumerate(found[3:6]))
    assert found[6:] == ["000000050", "000000051"]  # nothing to tell apart
    assert len(set(found)) == 8


@pytest.mark.parametrize("where", ["copy/00000.tar", "set/00001.tar"])
def test_the_same_tar_twice_is_told_by_its_content(tmp_path, where):
    write_tar(tmp_path / "set/00000.tar", pairs(3))
    write_tar(tmp_path / where, pairs(3))
    made = run(f"{tmp_path}/{{set,copy}}/*.tar", tmp_path / "out")
    assert (made.facts["samples"], made.facts["reasons"]) == (3, {"duplicate": 3})


def test_a_copy_of_the_second_set_is_a_duplicate_too(tmp_path):
    for name, members in (("a", pairs(3)), ("b", other(3)), ("c", other(3)), ("d", other(3, seed=200))):
        write_tar(tmp_path / name / "0.tar", members)
    made = run(f"{tmp_path}/{{a,b,c,d}}/0.tar", tmp_path / "out")
    assert (made.facts["samples"], made.facts["reasons"]) == (9, {"duplicate": 3})


def test_the_same_tar_named_twice_is_refused(tmp_path):
    write_tar(tmp_path / "a.tar", pairs(1))
    with pytest.raises(InputError, match="twice"):
        run(f"{tmp_path}/{{a,a}}.tar", tmp_path / "out")


def test_within_one_source_the_first_is_kept(tmp_path):
    write_tar(tmp_path / "a.tar", [*pairs(2), *other(1)])
    assert run(tmp_path, tmp_path / "out").facts["reasons"] == {"duplicate_key": 1}


def test_another_set_packs_only_itself_and_ends_in_what_a_run_from_scratch_gives(tmp_path, monkeypatch, capsys):
    first, second, third = (tmp_path / name / "0.tar" for name in "abc")
    write_tar(first, pairs(3))
    run(f"{tmp_path}/?/0.tar", tmp_path / "out")
    plain = digests(tmp_path / "out")
    write_tar(second, other(3))
    write_tar(third, [*other(2), *other(2, seed=300)[2:]])
    run(f"{tmp_path}/?/0.tar", tmp_path / "out")
    assert "1 sources kept as they were, 2 packed" in capsys.readouterr().err
    assert plain.items() <= digests(tmp_path / "out").items()
    run(f"{tmp_path}/?/0.tar", tmp_path / "scratch")
    assert digests(tmp_path / "out") == digests(tmp_path / "scratch")
    assert (tmp_path / "out/rejected.jsonl").read_bytes() == (tmp_path / "scratch/rejected.jsonl").read_bytes()
    first.unlink()  # then nothing has the keys of the second before it
    run(f"{tmp_path}/?/0.tar", tmp_path / "out")
    run(f"{tmp_path}/?/0.tar", tmp_path / "fresh")
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")
    assert keys(tmp_path / "out")[:3] == [f"{i:09d}" for i in range(3)]


def test_an_earlier_source_that_changes_its_content_reopens_the_question(tmp_path):
    write_tar(tmp_path / "a/0.tar", pairs(2))
    write_tar(tmp_path / "b/0.tar", pairs(2))
    run(f"{tmp_path}/?/0.tar", tmp_path / "out")
    assert reasons(tmp_path / "out") == ["duplicate"] * 2
    write_tar(tmp_path / "a/0.tar", other(2))
    assert run(f"{tmp_path}/?/0.tar", tmp_path / "out").facts["samples"] == 4


def test_every_record_is_counted(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "t.csv").write_text('filepath,title\na.png,"one\ntwo"\na.png,three\nb.png,x\nc.png,y,z\n')
    made = run(tmp_path / "t.csv", tmp_path / "out", kind="csv", csv_separator=",")
    assert "3 records: 1 packed, 2 rejected, 1 fields over several lines, 4 table rows" in capsys.readouterr().err
    assert made.facts["sources"][0]["notes"] == {"rows": 4, "multi_line_fields": 1}


def test_files_apart_are_all_named_so(tmp_path):
    members = sorted((m for m in pairs(3) if not m[0].endswith("json")), key=lambda member: member[0][-3:])
    write_tar(tmp_path / "a.tar", [*members, *pairs(1, 9)])
    run(tmp_path, tmp_path / "out")
    assert reasons(tmp_path / "out") == ["parts_apart"] * 6
