"""A small git and DVC repository in which everything of a retraining is real but the training itself.

Its stages take a moment: they draw a student whose scores follow from the data (`make.py`), in the stages' formats and
with a lineage. More tars make a better student, one named `shuffled` a bad one. A file `fail` beside the
repository lets the training fail with the exit code in it, `hang` lets it wait to be killed.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import yaml

from cliprd import cli
from cliprd.params import load
from cliprd.retrain.proposal import trained
from tests.integration.pipeline import ROOT, run
from tests.retrain import shapes

AUTHOR = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
DVC = {
    "stages": {
        "distill": {
            "matrix": {"method": "${ablation.methods}", "seed": "${ablation.seeds}"},
            "cmd": "python make.py student ${item.method} ${item.seed}",
            "params": ["distill"],
            "deps": ["data/train"],
            "outs": [{"work/students/${item.method}-${item.seed}": {"persist": True}}],
        },
        "benchmark": {
            "matrix": {"method": "${ablation.methods}", "seed": "${ablation.seeds}"},
            "cmd": "python make.py benchmark ${item.method} ${item.seed}",
            "deps": ["work/students/${item.method}-${item.seed}/manifest.json"],
            "outs": [{"work/benchmark/${item.method}-${item.seed}": {"persist": True}}],
        },
    }
}
MAKE = f"""
import json, os, shutil, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from cliprd.artifact import manifest
from tests.report import folders

what, method, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
student, benchmark = (Path("work", name, f"{{method}}-{{seed}}") for name in ("students", "benchmark"))
outside = Path(os.environ.get("ROOM") or Path.cwd().parent)
with (outside / "ran").open("a") as log:
    log.write(f"{{what}} {{method}}-{{seed}}\\n")
if what == "student":
    if (outside / "fail").exists():
        print("cliprd: error: it was told to fail.", file=sys.stderr)
        sys.exit(int((outside / "fail").read_text()))
    while (outside / "hang").exists():
        (outside / "hanging").touch()
        time.sleep(0.05)
    shutil.rmtree(student, ignore_errors=True)
    made = folders.write_student(student, method, seed)
    extra = {{"lineage.json": {{}}, "data.json": sorted(path.name for path in Path("data/train").iterdir())}}
else:
    shutil.rmtree(benchmark, ignore_errors=True)
    made = manifest.read(student)
    data = json.loads((student / "data.json").read_text())
    folders.NOISE[method] = 3.0 if "shuffled.tar" in data else [1.2, 0.5, 0.2][len(data) - 1]
    folders.write_benchmark(benchmark, method, seed, made, only=[t for t in folders.tasks() if t.name == "photos"])
    results = json.loads((benchmark / "results.json").read_text())
    results["model"] |= {{"method": method, "seed": seed}}
    manifest.write_json(benchmark / "results.json", results)
    made, extra = manifest.read(benchmark), {{"lineage.json": {{}}}}
tree = json.loads((outside / "lineage.json").read_text())
tree["params"]["distill"] |= {{"method": method, "seed": seed}}
for name, entry in tree["inputs"].items():  # what is known only when it is made
    entry |= {{"fingerprint": manifest.digest(entry), "facts": {{"samples": 4}}}}
extra["lineage.json"] = {{**tree, "facts": {{"run": f"{{method}}-{{seed}}"}}}}
folder = student if what == "student" else benchmark
for name, content in extra.items():
    manifest.write_json(folder / name, content)
manifest.write(folder, stage=made.stage, params=made.params, inputs=made.inputs, facts=made.facts)
"""


def params(champion: str) -> dict:
    return {
        **shapes.PARAMS,
        "ablation": {"methods": ["baseline"], "seeds": [0, 1]},
        "compare": {"reference": "baseline"},
        "retrain": {"method": "baseline", "seeds": [0]},
        "promote": {"champion": champion, "allow_guessing": True},
        "tracking": {"uri": ""},
    }


def tar(repo: Path, name: int | str) -> None:
    """A further shard of raw data."""
    name = f"{name:05d}" if isinstance(name, int) else name
    shapes.shard(repo / "data" / "train" / f"{name}.tar", shapes.FIRST, 4, seed=len(name))


def commit(repo: Path, message: str) -> None:
    run(repo, "git", "add", "-A")
    run(repo, "git", *AUTHOR, "commit", "-qm", message, "--allow-empty")


def make(room: Path, *, champion: str | None = None, remote: str | None = None) -> Path:
    """`room/repo` with one shard, on branch main, with `room/origin` as its origin."""
    repo = room / "repo"
    repo.mkdir(parents=True)
    (repo / "params.yaml").write_text(yaml.safe_dump(params(champion or str(room / "champion")), sort_keys=False))
    (repo / "dvc.yaml").write_text(yaml.safe_dump(DVC, sort_keys=False))
    (repo / "make.py").write_text(MAKE)
    shutil.copy(ROOT / ".gitignore", repo)
    shutil.copytree(ROOT / ".github", repo / ".github")
    shapes.tasks(repo / "data" / "tasks", images=16)
    tar(repo, 0)
    run(repo, "git", "init", "-q", "-b", "main", ".")
    run(repo, "dvc", "init", "-q")
    run(repo, "dvc", "remote", "add", "-q", "-d", "store", remote or str(room / "remote"))
    commit(repo, "start")
    run(room, "git", "init", "-q", "--bare", "-b", "main", "origin")
    run(repo, "git", "remote", "add", "origin", str(room / "origin"))
    run(repo, "git", "push", "-q", "-u", "origin", "main")
    return repo


def retrain(repo: Path, *arguments: str) -> tuple[int, str]:
    """`cliprd retrain` in the repository, in this process, which saves imports: its exit code, and all that it said."""
    prepare(repo)
    said = io.StringIO()
    with contextlib.chdir(repo), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main(["retrain", *arguments])
    return code, said.getvalue()


def prepare(repo: Path) -> None:
    """Leave the lineage of a training now where `make.py` finds it: to find it out would take each stage seconds."""
    from cliprd.retrain.wanted import lineage_now

    with contextlib.chdir(repo):
        tree = lineage_now(trained(load(Path("params.yaml"))))
    (repo.parent / "lineage.json").write_text(json.dumps(tree))


def report(repo: Path) -> dict:
    return json.loads((repo / "work" / "retrain" / "report.json").read_text())


def ran(repo: Path) -> list[str]:
    """The stages that ran since this was asked last."""
    log = repo.parent / "ran"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def outside(room: Path) -> dict[str, bytes]:
    """Everything that a retraining could change outside its repository."""
    return {
        path.relative_to(room).as_posix(): path.read_bytes()
        for name in ("champion", "remote")
        for path in sorted((room / name).rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }
