"""The wheel in an environment of its own, outside this repository: the core, each extra alone, and a user's project.

One environment serves all: between two extras it is set back to the core, which costs seconds and no download.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from cliprd.extras import MODULES
from tests.integration.pipeline import ROOT, environment
from tests.retrain import shapes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

IMAGE = "registry.example/cliprd:cpu-0123456789ab"
LIBRARY = [
    "cliprd.losses", "cliprd.models.load", "cliprd.teacher_cache", "cliprd.data.shards", "cliprd.distill.train",
    "cliprd.stages.prepare", "cliprd.stages.cache", "cliprd.benchmark.zeroshot", "cliprd.statistics.bootstrap",
]  # fmt: skip
PROMISES = {
    "mlflow": "import cliprd.tracking.ablation, cliprd.promotion.served_model",
    "dvc": "import subprocess; subprocess.run(['dvc', '--version'], check=True)",
    "onnx": "import cliprd.stages.distill",
    "kubeflow": "import cliprd.kubeflow.client, cliprd.kubeflow.compile as c; from cliprd.params import Params\n"
    f"for name in c.NAMES: c.compile_pipeline(name, Params(), {IMAGE!r})",
    "report": "import cliprd.stages.compare, cliprd.report.page",
    "demo": "from cliprd.demo_teacher import efficientnet, minilm\n"
    "assert efficientnet.weights_file().is_file() and minilm.model_folder().is_dir()",
    "transformers": "import transformers",
    "completion": "from cliprd import cli; assert cli.main(['completion', 'fish']) == 0",
    "server": "import psycopg2",
}


class Installed:
    """An environment with cliprd's wheel."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.wheels = folder, folder / "wheels"
        self.bin = folder / "env" / "bin"
        self.uv("venv", "-q", "--python", sys.executable, str(folder / "env"))

    def uv(self, *arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "uv"), *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        assert ran.returncode == 0, f"{arguments}\n{ran.stderr[-4000:]}"
        return ran.stdout

    def build(self, source: Path = ROOT) -> Path:
        shutil.rmtree(self.wheels, ignore_errors=True)
        options = ["--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(self.wheels)]
        self.uv("build", "-q", *options, str(source))
        (wheel,) = self.wheels.glob("*.whl")
        return wheel

    def install(self, what: str, *options: str) -> None:
        """Versions are the locked ones, which `make setup` has left in uv's cache."""
        locked = ["--constraint", str(ROOT / "requirements.lock"), "--python", str(self.bin / "python")]
        self.uv("pip", "install", "-q", *locked, *options, what)
        self.take_bytecode()

    def take_bytecode(self) -> None:
        """From this interpreter's packages, which are the same files: compiling them would take minutes."""
        theirs = Path(sysconfig.get_path("purelib"))
        mine = Path(*self.folder.glob("env/lib/python3*/site-packages"))
        for compiled in theirs.rglob("__pycache__"):
            package = mine / compiled.relative_to(theirs).parent
            if package.is_dir() and not (package / "__pycache__").exists():
                shutil.copytree(compiled, package / "__pycache__")

    def run(self, *command: str, folder: Path | None = None, code: int = 0) -> str:
        settings = {**environment(), "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        settings |= {"CLIPRD_SCRATCH": str(self.folder / "scratch")}
        settings.pop("PYTHONPATH", None)
        folder = folder or self.folder
        ran = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)
        assert ran.returncode == code, f"{command}\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
        return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    env = Installed(tmp_path_factory.mktemp("wheel"))
    env.install(str(env.build()))
    (env.folder / "params.yaml").write_text("student: {arch: ViT-T-16}\n")
    return env


def test_the_core_is_a_library_and_names_the_extra_of_all_that_it_lacks(installed, tmp_path):
    installed.run("python", "-c", f"import {', '.join(LIBRARY)}")
    assert "missing" not in installed.run("cliprd", "doctor", folder=tmp_path).partition("devices")[0]
    installed.run("cliprd", "plan", "--samples", "1000", "--set", "tracking.uri=")
    for extra, command in {
        "mlflow": ["plan", "--samples", "1000"],
        "kubeflow": ["pipeline", "compile", "distill", "--image", IMAGE],
        "completion": ["completion", "zsh"],
        "onnx": ["distill", "--shards", "s", "--cache", "c", "--output", str(tmp_path / "o")],
        "dvc": ["retrain", "--set", "tracking.uri=", "--set", f"promote.champion={tmp_path}"],
    }.items():
        text = installed.run("cliprd", *command, code=5)
        assert f"pip install 'cliprd[{extra}]'" in text
        assert (
            len([line for line in text.splitlines() if line.startswith("cliprd:")]) == 1
        )  # `plan` prints its lines first


def test_each_extra_alone_brings_what_it_promises(installed):
    core = installed.folder / "core.txt"
    python = ("--python", str(installed.bin / "python"))
    core.write_text(installed.uv("pip", "freeze", *python))
    (wheel,) = installed.wheels.glob("*.whl")
    for extra, promise in PROMISES.items():
        installed.install(f"cliprd[{extra}] @ file://{wheel}")
        modules = ", ".join(MODULES.get(extra, ("cliprd",)))
        installed.run("python", "-c", f"import {modules}\n{promise}")
        installed.uv("pip", "sync", "-q", *python, str(core))


def test_a_users_project_works_and_an_upgrade_that_reaches_no_stage_runs_nothing(installed, tmp_path):
    (wheel,) = installed.wheels.glob("*.whl")
    installed.install(f"cliprd[all] @ file://{wheel}")
    mine = tmp_path / "mine"
    installed.run("cliprd", "init", str(mine), "--tasks", "data/tasks")
    shapes.shard(mine / "data" / "train" / "00000.tar", shapes.FIRST, 64, seed=0)
    shapes.tasks(mine / "data" / "tasks", images=24)
    params = {**shapes.PARAMS, "promote": {"champion": str(tmp_path / "champion"), "allow_guessing": True}}
    params["teacher"] = {"name": "aligned", "aligned": {"epochs": 1, "image_size": 32, "batch_size": 64}}
    params["distill"] = {**params["distill"], "epochs": 1}
    params["tracking"] = {"uri": ""}
    (mine / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (mine / ".gitignore").write_text((mine / ".gitignore").read_text() + "/data/\n")
    author = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    for command in (["init", "-q", "."], ["add", "-A"], [*author, "commit", "-qm", "Start"]):
        installed.run("git", *command, folder=mine)
    assert not list(mine.rglob("*.py"))

    installed.run("dvc", "repro", folder=mine)
    assert (mine / "reports" / "index.html").is_file()
    installed.run("cliprd", "retrain", folder=mine)
    assert (tmp_path / "champion" / "champion.json").is_file()
    installed.run("cliprd", "pipeline", "compile", "ablation", "--image", IMAGE, "--output", "a.yaml", folder=mine)
    assert IMAGE in (mine / "a.yaml").read_text()
    assert "--image" in installed.run("cliprd", "pipeline", "compile", "distill", folder=mine, code=2)

    source = tmp_path / "source"
    source.mkdir()
    for name in ("src", "components", "pipelines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name, text in (("data/keys.py", "# a comment\n"), ("report/svg.py", "# another\n"), ("doctor.py", "NEW = 1\n")):
        with (source / "src" / "cliprd" / name).open("a") as file:
            file.write(text)
    installed.install(str(installed.build(source)), "--no-deps", "--reinstall")
    assert "NEW = 1" in installed.run("python", "-c", "import cliprd.doctor as d; print(open(d.__file__).read())")
    log = installed.run("dvc", "repro", folder=mine)
    assert "inputs: nothing changed" in log
    assert [line for line in log.splitlines() if line.startswith("Running stage")] == ["Running stage 'inputs':"]
