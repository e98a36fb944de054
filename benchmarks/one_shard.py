"""What one raw shard more costs: `prepare` and `cache` in a folder that holds the other shards, against a fresh build.

    python benchmarks/one_shard.py [--shards N] [--samples N] [--rounds N]

The embedded images, the demo teacher. Fresh and added alternate in one run, so that other load on the machine meets
both; that they end in the same bytes is checked each time. The teacher is loaded in both, once.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

from _record import save

from cliprd.artifact import manifest
from cliprd.params import Params
from cliprd.stages import cache, prepare, teacher

REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    """Measure and save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shards", type=int, default=8)
    arguments.add_argument("--samples", type=int, default=48, help="of a shard")
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    seconds: dict[str, list[float]] = {"fresh build": [], "one shard added": [], "one shard dropped": []}
    with tempfile.TemporaryDirectory() as room:
        root = Path(room)
        all_of_them = [raw(root / "all", number, options.samples) for number in range(options.shards)]
        aligned = {"epochs": 2, "image_size": 64, "batch_size": 128}
        params = Params.model_validate({"data": {"path": str(root / "raw")}, "teacher": {"aligned": aligned}})
        link(root / "raw", all_of_them[:1])
        prepare.run(params, {}, root / "first")
        teacher.run(params, {"shards": root / "first"}, root / "teacher")
        for number in range(options.rounds):
            added, fresh = root / f"added{number}", root / f"fresh{number}"
            link(root / "raw", all_of_them[:-1])
            make(params, root, added)
            link(root / "raw", all_of_them)
            both = [("fresh build", fresh), ("one shard added", added)]
            for name, place in both if number % 2 else both[::-1]:
                seconds[name].append(make(params, root, place))
            if manifest.read(added / "cache").fingerprint != manifest.read(fresh / "cache").fingerprint:
                raise SystemExit("the bytes differ")
            link(root / "raw", all_of_them[:-1])
            seconds["one shard dropped"].append(make(params, root, added))
            shutil.rmtree(added)
            shutil.rmtree(fresh)
    base = statistics.median(seconds["fresh build"])
    save(
        "one_shard",
        [
            {
                "path": name,
                "median_s": statistics.median(taken),
                "fastest_s": min(taken),
                "share": statistics.median(taken) / base,
            }
            for name, taken in seconds.items()
        ],
        shards=options.shards,
        samples_per_shard=options.samples,
        rounds=options.rounds,
        teacher="aligned, 64 px",
    )


def make(params: Params, root: Path, place: Path) -> float:
    """Both stages; how long they took."""
    begun = time.perf_counter()
    prepare.run(params, {}, place / "shards")
    cache.run(params, {"shards": place / "shards", "teacher": root / "teacher"}, place / "cache")
    return time.perf_counter() - begun


def raw(folder: Path, number: int, samples: int) -> Path:
    """A raw shard of the embedded images."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{number:05d}.tar"
    with tarfile.open(REPOSITORY / "data/demo/train/00000.tar.gz") as tar, tarfile.open(path, "w") as out:
        for entry in itertools.islice(tar, 2 * samples * number, 2 * samples * (number + 1)):
            out.addfile(entry, tar.extractfile(entry))
    return path


def link(folder: Path, shards: list[Path]) -> None:
    """The folder that `data.path` names, with these shards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for shard in shards:
        (folder / shard.name).hardlink_to(shard)


if __name__ == "__main__":
    main()
