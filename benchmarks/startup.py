"""What all beside the work costs: starts, a resumed training, a no-op `dvc repro`; the sides alternate in one run.

    python benchmarks/startup.py [--before SRC] [--rounds N] [--only start resume dvc] [--pick WORD ...]

`--before` takes the `src` folder of another version of cliprd, which is then measured beside this one in pairs: its
figures are `before_s`, and `change_ratio` is this one's time over its. Seconds are the processor's, user and system, of
the process and its children, medians of the rounds; `wall_s` is what a busy machine made of them.

start   modules as a stage loads them, commands that do little, and the libraries alone: the floor.
resume  a small training, killed after its first checkpoint: from the start of the process to its next checkpoint.
dvc     `dvc repro` with nothing to do in the project's own pipeline (its outputs are stand-ins), `dvc status`, and
        `dvc repro` of a pipeline of one `true`: what remains is DVC's own start.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _record import save

REPOSITORY = Path(__file__).parents[1]
SRC = REPOSITORY / "src"
PYTHON = sys.executable
PATH = f"{Path(PYTHON).parent}:{os.environ['PATH']}"
CLI = [PYTHON, "-m", "cliprd.cli"]
STARTS = {
    "python -c pass": [PYTHON, "-c", "pass"],
    "cliprd --help": [*CLI, "--help"],
    "cliprd params": [*CLI, "params"],
    **{
        f"import {module}": [PYTHON, "-c", f"import {module}"]
        for module in (
            "torch",
            "open_clip",
            "cliprd.stages.prepare",
            "cliprd.stages.cache",
            "cliprd.stages.distill",
            "cliprd.stages.benchmark",
            "cliprd.stages.compare",
            "cliprd.promotion.promote",
        )
    },
    "cliprd retrain --dry-run": [*CLI, "retrain", "--dry-run", "--set", "promote.champion=work/no-champion"],
}
TINY = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 64, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "layers": 1, "width": 64, "heads": 2},
}


def spent(command: list[str], *, src: Path = SRC, cwd: Path = REPOSITORY) -> tuple[float, float]:
    """Processor's and wall's seconds of a process."""
    environment = {**os.environ, "PATH": PATH, "PYTHONPATH": str(src), "DVC_NO_ANALYTICS": "1"}
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said.decode()}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - begun


def paired(
    what: dict[str, Callable[[Path], tuple[float, float]]], before: Path | None, rounds: int
) -> list[dict[str, Any]]:
    """A line each; with `before` both versions in turn, neither always the first."""
    sides = [SRC, *([before] if before else [])]
    times: dict[tuple[str, Path], list[tuple[float, float]]] = {(name, src): [] for name in what for src in sides}
    for number in range(rounds):
        for name, call in what.items():
            for src in sides[:: 1 if number % 2 else -1]:
                times[name, src].append(call(src))
                cpu, wall = times[name, src][-1]
                side = "" if src == SRC else " (before)"
                print(f"{name}{side}: {cpu:.2f} s of the processor, {wall:.2f} s", file=sys.stderr, flush=True)
    rows = []
    for name in what:
        cpu, wall = (statistics.median(column) for column in zip(*times[name, SRC], strict=True))
        row: dict[str, Any] = {"what": name, "cpu_s": cpu, "wall_s": wall}
        if before:
            row["before_s"] = statistics.median(one[0] for one in times[name, before])
            row["change_ratio"] = cpu / row["before_s"]
        rows.append(row)
    return rows


def starts() -> dict[str, Callable[[Path], tuple[float, float]]]:
    """Commands and imports."""
    return {name: lambda src, command=command: spent(command, src=src) for name, command in STARTS.items()}


def resume(room: Path) -> dict[str, Callable[[Path], tuple[float, float]]]:
    """The start of a training that goes on, and of the same one from nothing."""
    from cliprd.params import Params
    from cliprd.stages import prepare

    with tarfile.open(REPOSITORY / "data/demo/train/00000.tar.gz") as tar, tarfile.open(room / "raw.tar", "w") as out:
        for entry in itertools.islice(tar, 2 * 256):
            out.addfile(entry, tar.extractfile(entry))
    data = {"path": str(room / "raw.tar"), "samples_per_shard": 1000}
    prepare.run(Params.model_validate({"data": data}), {}, room / "shards")
    settings = {
        "data": data,
        "tracking": {"uri": ""},
        "teacher": {"name": f"open_clip:tiny:{room / 'tiny.safetensors'}"},
        "student": {"config": TINY},
        "distill": {"epochs": 1000, "batch_size": 32, "checkpoint_every": 1, "device": "cpu", "method": "clip_kd"},
    }
    (room / "params.yaml").write_text(json.dumps(settings))
    code = (
        "import sys, json, torch, open_clip; from pathlib import Path; from safetensors.torch import save_file\n"
        "room, config = Path(sys.argv[1]), json.loads(sys.argv[2]); (room / 'models').mkdir()\n"
        "(room / 'models/tiny.json').write_text(json.dumps(config)); open_clip.add_model_config(room / 'models')\n"
        "state = open_clip.create_model('tiny').state_dict()\n"
        "save_file({k: v.contiguous() for k, v in state.items()}, room / 'tiny.safetensors')\n"
        "from cliprd import params; from cliprd.stages import cache, teacher\n"
        "tree = params.load(room / 'params.yaml')\n"
        "teacher.run(tree, {}, room / 'teacher')\n"
        "cache.run(tree, {'shards': room / 'shards', 'teacher': room / 'teacher'}, room / 'cache')\n"
    )
    subprocess.run([PYTHON, "-c", code, str(room), json.dumps(TINY)], check=True, stderr=subprocess.DEVNULL)

    def first_step(src: Path, *, fresh: bool) -> tuple[float, float]:
        output = room / "student"
        if fresh or not output.exists():
            shutil.rmtree(output, ignore_errors=True)
        known = _checkpoints(output)
        command = [*CLI, "distill", "--params", str(room / "params.yaml"), "--shards", str(room / "shards")]
        command += ["--cache", str(room / "cache"), "--output", str(output)]
        environment = {**os.environ, "PYTHONPATH": str(src)}
        begun = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not _checkpoints(output) - known:
            if process.poll() is not None:
                raise SystemExit(f"the training ended: {process.stderr.read().decode() if process.stderr else ''}")
            time.sleep(0.005)
        wall = time.perf_counter() - begun
        process.send_signal(signal.SIGKILL)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = -signal.SIGKILL
        return usage.ru_utime + usage.ru_stime, wall

    return {
        "a training's start to its first checkpoint": lambda src: first_step(src, fresh=True),
        "a resumed training's start to its next checkpoint": lambda src: first_step(src, fresh=False),
    }


def _checkpoints(output: Path) -> set[str]:
    return {path.name for path in output.rglob("step-*.json")} if output.exists() else set()


def dvc(room: Path) -> dict[str, Callable[[Path], tuple[float, float]]]:
    """A repository with the project's pipeline, all of it done, and one with a trivial stage."""
    ours, bare = room / "ours", room / "bare"
    for folder in (ours, bare):
        folder.mkdir(parents=True)
        spent(["git", "init", "-q"], cwd=folder)
        spent(["dvc", "init", "-q"], cwd=folder)
    for name in ("dvc.yaml", "params.yaml", "src", "data"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, ours / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, ours / name)
    outputs = ["shards", "teacher", "cache", "benchmark/teacher"]
    from cliprd import params

    grid = params.load(REPOSITORY / "params.yaml").ablation
    arms = [f"{method}-{seed}" for method in grid.methods for seed in grid.seeds]
    outputs += [f"{kind}/{arm}" for kind in ("students", "benchmark") for arm in arms]
    for output in (*(ours / "work" / name for name in outputs), ours / "reports"):
        output.mkdir(parents=True)
        (output / "manifest.json").write_text("{}")
    spent([f"{Path(sys.executable).parent}/cliprd", "inputs", "--output", "work/inputs"], cwd=ours)
    (bare / "given").write_text("")
    (bare / "dvc.yaml").write_text("stages:\n  nothing:\n    cmd: 'true'\n    deps: [given]\n")
    spent(["dvc", "commit", "-q", "-f"], cwd=ours)
    spent(["dvc", "repro", "-q"], cwd=bare)
    return {
        "dvc --version": lambda src: spent(["dvc", "--version"], cwd=bare),
        "dvc repro, one trivial stage, nothing to do": lambda src: spent(["dvc", "repro"], cwd=bare),
        "dvc status, the project's pipeline": lambda src: spent(["dvc", "status"], cwd=ours),
        "dvc repro, the project's pipeline, nothing to do": lambda src: spent(["dvc", "repro"], cwd=ours),
    }


def main() -> None:
    """Measure and save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--before", type=Path, metavar="SRC")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--only", nargs="+", choices=("start", "resume", "dvc"), default=("start", "resume", "dvc"))
    arguments.add_argument(
        "--pick", nargs="+", default=[""], metavar="WORD", help="of `start`, only what holds one of them"
    )
    arguments.add_argument("--name", default="startup", help="of the result file")
    options = arguments.parse_args()
    if options.before:
        sys.argv = ["SRC" if word == str(options.before) else word for word in sys.argv]  # no path of this machine
    rows = []
    with tempfile.TemporaryDirectory() as room:
        if "start" in options.only:
            picked = {k: v for k, v in starts().items() if any(word in k for word in options.pick)}
            rows += paired(picked, options.before, options.rounds)
        if "resume" in options.only:
            (Path(room) / "resume").mkdir()
            rows += paired(resume(Path(room) / "resume"), options.before, options.rounds)
        if "dvc" in options.only:
            rows += paired(dvc(Path(room) / "dvc"), None, options.rounds)
    base = next((row["cpu_s"] for row in rows if row["what"] == "python -c pass"), None)
    for row in rows:
        row["python_ratio"] = row["cpu_s"] / base if base else None
    save(options.name, rows, rounds=options.rounds)


if __name__ == "__main__":
    main()
