"""A raw shard comes, goes or changes: only what depends on it is made again, and the end is that of a fresh build."""

import json
import shutil

import pytest

from cliprd.artifact import identity
from cliprd.data.shards import ShardSet
from cliprd.stages import cache, prepare
from tests.data.pictures import png, write_tar
from tests.teacher_cache import rooms

# Raw shard → samples: key, captions. `stock photo` comes in most of them, so rows are shared from shard to shard.
RAW = {
    "a": [("a1", ["a one", "stock photo"]), ("a2", ["a two"]), ("a3", ["a three of them", "a one"])],
    "b": [("b1", ["stock photo"]), ("b2", ["b two", "b"])],
    "c": [("c1", ["c one, the longest of all captions here", "stock photo"]), ("c2", ["a two"]), ("c3", ["c"])],
    "d": [("d1", ["nobody else says this"]), ("d2", ["d two"])],
    "f": [("f1", ["nobody else says this"])],
    "e": [("a1", ["a key of another shard"]), ("e2", ["b"]), ("bad", None)],
}


class Room:
    """Raw shards in a folder, and what the stages make of those that are asked for."""

    def __init__(self, root):
        self.root = root
        self.teacher = rooms.write_teacher(root / "teacher")
        self.packed, self.pictures, self.texts = [], 0, []

    def params(self, **sections):
        return rooms.params(self.root / "raw", data={"samples_per_shard": 2, "max_bad_fraction": 1.0}, **sections)

    def raw(self, names):
        shutil.rmtree(self.root / "raw", ignore_errors=True)
        for name in names:
            members = []
            for number, (key, captions) in enumerate(RAW[name]):
                members.append((f"{key}.png", png(seed=len(name) + number + 10 * ord(name[0]))))
                members += [(f"{key}.txt", "\n".join(captions).encode())] if captions else []
            write_tar(self.root / f"raw/{name}.tar", members)

    def make(self, names, where, monkeypatch, params=None):
        """Both stages; what they have decoded and embedded is in `packed`, `pictures` and `texts`."""
        params = params or self.params()
        self.raw(names)
        self.packed, self.pictures, self.texts = [], 0, []
        pack, load = prepare.pack, cache.load_encoder
        with monkeypatch.context() as patch:
            patch.setattr(prepare, "pack", lambda raw, data: self.packed.append(raw.key) or pack(raw, data))
            patch.setattr(cache, "load_encoder", lambda *rest: Counting(load(*rest), self))
            prepare.run(params, {}, where / "shards")
            cache.run(params, {"shards": where / "shards", "teacher": self.teacher}, where / "cache")
        return json.loads((where / "cache/volatile/throughput.json").read_text())


class Counting:
    def __init__(self, encoder, room):
        self._encoder, self._room = encoder, room

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def encode_images(self, x):
        self._room.pictures += len(x)
        return self._encoder.encode_images(x)

    def encode_texts(self, texts):
        self._room.texts += texts
        return self._encoder.encode_texts(texts)


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


def content(where):
    """Bytes of all but the clock's, and litter would be seen as well."""
    return {
        path.relative_to(where).as_posix(): path.read_bytes()
        for path in sorted(where.rglob("*"))
        if path.is_file() and "throughput" not in path.name
    }


def fresh(room, names, monkeypatch):
    room.make(names, room.root / f"fresh-{names}", monkeypatch)
    return content(room.root / f"fresh-{names}")


def stamps(folder, suffix):
    return {path.name: path.stat().st_ino for path in folder.glob(f"*{suffix}")}


@pytest.mark.parametrize(
    ("before", "after", "embedded", "captions_anew"),
    [
        ("abc", "abcd", 1, 0),
        ("bcd", "abcd", 2, 2),  # the new first shard takes `stock photo` and `a two` over from b and c
        ("abd", "abcd", 2, 0),
        ("ad", "abdf", 2, 0),  # what d has embedded, f knows
        ("abc", "ab", 0, 0),
        ("abc", "bc", 0, 2),
        ("abe", "ae", 0, 1),
        ("be", "abe", 3, 1),  # a1 of e is a double now: e is packed again, and its first shard is another one
        ("abe", "be", 1, 1),
        ("abcde", "eb", 1, 1),
    ],
)
def test_only_what_depends_on_it_is_made_again(room, monkeypatch, before, after, embedded, captions_anew):
    where = room.root / "out"
    room.make(before, where, monkeypatch)
    files = stamps(where / "cache", ".safetensors")
    known = {shard.sha256 for shard in ShardSet.open(where / "shards").shards}
    note = room.make(after, where, monkeypatch)
    shards = ShardSet.open(where / "shards").shards
    assert (note["shards_embedded"], note["captions_anew"]) == (embedded, captions_anew)
    assert note["shards_reused"] == len(shards) - embedded
    assert room.pictures == 2 * sum(shard.samples for shard in shards if shard.sha256 not in known)
    kept = [name for name, inode in stamps(where / "cache", ".safetensors").items() if files.get(name) == inode]
    assert len(kept) == len(shards) - embedded - captions_anew
    assert content(where) == fresh(room, after, monkeypatch)


def test_a_shared_row_that_rounds_otherwise_now_is_taken_over(room, monkeypatch):
    """Rows may depend on what shares their batch: the last bits do, with larger models; here the first ones."""

    def by_its_batch(self, texts):
        return self._encoder.encode_texts(texts) * (1 + 0.01 * sum(map(len, texts)))

    monkeypatch.setattr(Counting, "encode_texts", by_its_batch)
    for name, company in (("a", "one"), ("b", "two and more"), ("c", "three")):
        monkeypatch.setitem(RAW, name, [(f"{name}1", ["shared"]), (f"{name}2", [company])])
    where = room.root / "out"
    room.make("ac", where, monkeypatch)
    note = room.make("bc", where, monkeypatch)
    assert (note["shards_embedded"], note["captions_anew"]) == (1, 1)
    assert content(where) == fresh(room, "bc", monkeypatch)


def test_unchanged_raw_shards_are_not_decoded_again(room, monkeypatch, capsys):
    where = room.root / "out"
    room.make("ac", where, monkeypatch)
    tars = stamps(where / "shards", ".tar")
    capsys.readouterr()
    room.make("abcd", where, monkeypatch)
    assert room.packed == ["b1", "b2", "d1", "d2"]
    assert tars.items() <= stamps(where / "shards", ".tar").items()
    told = capsys.readouterr().err
    assert "prepare: 2 sources kept as they were, 2 packed" in told
    assert "cache: 2 shards embedded, 4 reused" in told
    room.make("acd", where, monkeypatch)
    assert room.packed == []
    assert room.pictures == 0


def test_a_changed_raw_shard_is_packed_again_and_no_other(room, monkeypatch):
    where = room.root / "out"
    room.make("abc", where, monkeypatch)
    monkeypatch.setitem(RAW, "b", [("b1", ["another caption"]), ("b3", ["b three"])])
    note = room.make("abc", where, monkeypatch)
    assert room.packed == ["b1", "b3"]
    assert note["shards_embedded"] == 1
    assert content(where) == fresh(room, "abc", monkeypatch)


@pytest.mark.parametrize("stage", ["prepare", "cache"])
def test_killed_on_the_way_to_other_shards_it_ends_in_the_same_bytes(room, monkeypatch, stage):
    where = room.root / "out"
    room.make("bce", where, monkeypatch)
    module = __import__("sys").modules["cliprd.teacher_cache.build"] if stage == "cache" else prepare
    name = "write_rows" if stage == "cache" else "write_shard"
    real = getattr(module, name)

    def dying(path, *rest):
        if path.name.startswith("d-"):
            raise KeyboardInterrupt
        real(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dying)
        with pytest.raises(KeyboardInterrupt):
            room.make("abcde", where, monkeypatch)
    assert not (where / stage.replace("prepare", "shards") / "manifest.json").exists()
    room.make("acde", where, monkeypatch)  # and the shards change once more meanwhile
    assert content(where) == fresh(room, "acde", monkeypatch)


@pytest.mark.parametrize("change", ["augmentation", "batch_size", "teacher", "code", "merged"])
def test_files_made_in_another_way_are_not_kept(room, monkeypatch, change):
    where, params = room.root / "out", room.params()
    room.make("ab", where, monkeypatch)
    if change == "augmentation":
        params = room.params(augmentation={"seed": 6})
    elif change == "batch_size":
        params = room.params(cache={"batch_size": 4})
    elif change == "teacher":
        shutil.rmtree(room.teacher)
        rooms.write_teacher(room.teacher, seed=2)
    elif change == "code":
        digest = identity.digest
        monkeypatch.setattr(identity, "digest", lambda name: "other" if name.endswith(".cache") else digest(name))
    else:
        (where / "cache/volatile/made.json").unlink()  # as `merge` leaves it
    note = room.make("abc", where, monkeypatch, params)
    assert (note["shards_embedded"], note["shards_reused"]) == (5, 0)
    assert room.packed == ["c1", "c2", "c3"]


@pytest.mark.parametrize("damage", ["tar", "rows"])
def test_what_is_damaged_is_made_again(room, monkeypatch, damage):
    where = room.root / "out"
    room.make("abc", where, monkeypatch)
    path = where / ("shards/b-00000.tar" if damage == "tar" else "cache/b-00000.safetensors")
    data = bytearray(path.read_bytes())
    data[-2000 if damage == "tar" else -3] ^= 1
    path.write_bytes(data)
    note = room.make("abcd", where, monkeypatch)
    assert room.packed == (["b1", "b2"] if damage == "tar" else []) + ["d1", "d2"]
    assert note["shards_embedded"] == (1 if damage == "tar" else 2)
    assert content(where) == fresh(room, "abcd", monkeypatch)
