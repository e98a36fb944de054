"""The pipelines run by KFP's local runners, in processes and in real containers of the real image.

Whole, reused, damaged, refused, killed in the middle, in an image that lacks a part, and with all data in S3.
"""

import json
import re
import shutil
from pathlib import Path

import boto3
import pytest
import yaml

import docker
from cliprd import params
from cliprd.artifact import manifest
from cliprd.kubeflow.argo import PARAMS, compile_argo
from tests import docker_engine, s3_server
from tests.integration.pipeline import make, run
from tests.kubeflow.test_argo_alone import commands

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]
SMALL = (
    "tracking.uri=''", "cache.views=1", "benchmark.protocols=[standard]", "kubernetes.cache_parts=2",
    "ablation.methods=[clip_kd,clip_rd-exp]",
    "kubernetes.environment={OMP_NUM_THREADS: '1'}",  # as processes here have: sums are rounded alike
)  # fmt: skip
ROOM = {"process": Path("work/pipeline"), "docker": Path("work/containers")}


def pipeline(repo: Path, name: str, *arguments: str, runner: str = "process", check: bool = True, env=None):
    overrides = [part for override in SMALL for part in ("--set", override)]
    command = ["cliprd", "pipeline", "run", name, "--local", runner, "--root", str(ROOM[runner]), *overrides]
    return run(repo, *command, *arguments, check=check, env=env)


def last(repo: Path, runner: str = "process") -> Path:
    """The newest run's folder; its name ends in the time."""
    return max((repo / ROOM[runner] / "runs").iterdir(), key=lambda path: path.name.split("-", 2)[2])


def folders(run_folder: Path) -> dict[str, Path]:
    """Stage → folder, of what this run made itself; of the cache's parts one."""
    found = [path.parent for path in run_folder.rglob(manifest.NAME)]
    return {manifest.read(path).stage: path for path in found}


def told(result) -> dict[str, list[str]]:
    """Step → what was said of it, line by line."""
    lines = [re.match(r"\d\d:\d\d:\d\d (.{24}) (.*)", line) for line in result.stdout.splitlines()]
    steps: dict[str, list[str]] = {}
    for line in filter(None, lines):
        steps.setdefault(line[1].strip(), []).append(line[2])
    return steps


@pytest.fixture(scope="module")
def repo(tmp_path_factory) -> Path:
    """A repository in which the pipeline `distill` ran once, in processes."""
    folder = make(tmp_path_factory.mktemp("kubeflow") / "repo")
    result = pipeline(folder, "distill")
    assert "is complete: steps run 10, finished before 0" in result.stdout
    return folder


@pytest.fixture(scope="module")
def image() -> str:
    return docker_engine.image()


@pytest.fixture(scope="module")
def slim() -> tuple[str, str]:
    """Option of the image without torch, for the steps that need none."""
    return "--set", f"kubernetes.slim_image={docker_engine.image('slim')}"


@pytest.fixture(scope="module")
def contained(repo, image, slim):
    """The same in containers; gives what the engine says of them, and what the run said."""
    with docker_engine.watched(image, docker_engine.image("slim")) as containers:
        result = pipeline(repo, "distill", *slim, runner="docker")
    return containers, result


def test_every_step_leaves_a_whole_folder_and_shows_what_came_of_it(repo):
    made = folders(last(repo))
    assert set(made) == {"prepare", "teacher", "cache-part", "cache", "distill", "benchmark", "compare"}
    for folder in made.values():
        manifest.verify(folder)
    step = last(repo) / "report"
    assert "<html" in (step / "page").read_text(encoding="utf-8")
    assert "clip_rd-exp" in (step / "table").read_text(encoding="utf-8")
    assert set(json.loads((step / "scores").read_text())) == {"teacher", "clip_rd-exp"}
    shown = json.loads((last(repo) / "benchmark" / "confusion").read_text())
    counts = [sum(row) for row in shown["counts"]]
    assert len(shown["classes"]) == len(counts) == 17
    assert sum(counts) == 60
    assert "training 2 epochs" in (last(repo) / "plan" / "text").read_text(encoding="utf-8")


def test_the_student_is_the_one_that_the_command_line_makes(repo, tmp_path):
    made = folders(last(repo))
    run(
        repo, "cliprd", "distill", "--shards", str(made["prepare"]), "--cache", str(made["cache"]),
        "--method", "clip_rd-exp", "--seed", "0", "--output", str(tmp_path / "student"), "--set", "tracking.uri=''",
    )  # fmt: skip
    assert manifest.read(tmp_path / "student").fingerprint == manifest.read(made["distill"]).fingerprint


def test_an_ablation_uses_what_was_made_and_trains_the_rest(repo):
    result = pipeline(repo, "ablation")
    assert "steps run 5, finished before 7" in result.stdout  # plan; one student; scores; the comparison
    (compared,) = last(repo).rglob("comparison.json")
    assert set(json.loads(compared.read_text())["protocols"]["standard"]["methods"]) == {"clip_kd", "clip_rd-exp"}
    assert "steps run 1, finished before 11" in pipeline(repo, "ablation").stdout


def test_joined_steps_and_a_comparison_from_the_store_give_the_same_artifacts(repo, bucket):
    _, env = bucket
    runs = [*(repo / ROOM["process"] / "runs").iterdir()]
    known = {manifest.read(path.parent).fingerprint for run in runs for path in run.rglob(manifest.NAME)}
    joined = [
        part
        for override in ("fuse=true", "cache_parts=1", "store=s3://bucket/store")
        for part in ("--set", f"kubernetes.{override}")
    ]
    result = pipeline(repo, "ablation", *joined, "--set", "ablation.methods=[clip_kd]", env=env)
    assert "is complete: steps run 6, finished before 0" in result.stdout
    made = {path.parent: manifest.read(path.parent) for path in last(repo).rglob(manifest.NAME)}
    assert sorted(sealed.stage for sealed in made.values()) == sorted(
        ["prepare", "teacher", "cache", "benchmark", "distill", "benchmark", "compare"]
    )
    new = {folder.name for folder, sealed in made.items() if sealed.fingerprint not in known}
    assert new <= {"embeddings", "model", "results", "comparison"}  # a merged cache's captions differ by rounding
    (compared,) = (folder for folder, sealed in made.items() if sealed.stage == "compare")
    found = json.loads((compared / "comparison.json").read_text())
    assert set(found["protocols"]["standard"]["methods"]) == {"clip_kd"}


def test_a_damaged_output_is_made_again_and_only_that(repo):
    victim = sorted((repo / "work/pipeline/runs").rglob("open_clip_model.safetensors"))[0]
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    result = pipeline(repo, "ablation")
    assert f"{victim} is damaged" in result.stdout
    assert set(folders(last(repo))) <= {"distill", "benchmark", "compare"}
    assert len(list(last(repo).rglob("open_clip_model.safetensors"))) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "student.config={}"], "student"),
        (["--set", "data.path=data/nothing"], "data/nothing does not exist"),
        (["--set", "benchmark.names=[tuxpaint_photo]"], "Did you mean 'tuxpaint_photos'?"),
    ],
    ids=["architecture", "data", "task"],
)
def test_wrong_input_is_refused_by_the_plan_with_the_stages_own_words(repo, arguments, words):
    result = pipeline(repo, "distill", *arguments, check=False)
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    (step,) = told(result)
    assert step.startswith("plan")
    assert not folders(last(repo))


def test_an_input_that_is_none_is_refused_before_anything_runs(repo):
    before = set((repo / ROOM["process"] / "runs").iterdir())
    for given, words in (("method=clip_kdd", "'clip_kdd' is no method"), ("metod=vrd", "Did you mean 'method'?")):
        result = pipeline(repo, "distill", "--input", given, check=False)
        assert (result.returncode, result.stdout) == (2, "")
        assert words in result.stderr
    assert set((repo / ROOM["process"] / "runs").iterdir()) == before


def test_containers_make_the_same_student_bit_for_bit(repo, contained):
    made, others = folders(last(repo, "docker")), folders(min((repo / "work/pipeline/runs").glob("cliprd-distill-*")))
    for stage in ("prepare", "teacher", "cache", "distill"):
        manifest.verify(made[stage])
        assert (made[stage] / manifest.NAME).read_bytes() == (others[stage] / manifest.NAME).read_bytes(), stage
    assert (made["distill"] / "open_clip_model.safetensors").stat().st_uid == 10001


def test_containers_are_shut_in(contained):
    containers, result = contained
    assert "steps run 10, finished before 0" in result.stdout
    assert len(containers) >= 9  # one that ends between two looks is not seen
    assert {container["Config"]["Image"].partition("-")[0] for container in containers} == {"cliprd:cpu", "cliprd:slim"}
    for container in containers:
        assert container["Config"]["User"] == "10001"
        assert container["HostConfig"]["ReadonlyRootfs"] is True
        assert container["HostConfig"]["CapDrop"] == ["ALL"]
        assert container["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
        writable = [mount["Source"] for mount in container["Mounts"] if mount["RW"]]
        assert {Path(path).name for path in writable} <= {"runs", "workspace"}


def test_a_killed_step_fails_the_run_there_and_a_rerun_reuses_the_rest(repo, contained, image, slim):
    """Also where the runner takes the container that vanished for a success."""
    killed = []

    def kill(container):
        if "distill" in " ".join(container.attrs["Config"]["Cmd"]) and any(last(repo, "docker").rglob(".checkpoint")):
            container.kill()
            killed.append(container.id)

    with docker_engine.watched(image, react=kill):
        result = pipeline(repo, "distill", *slim, "--input", "seed=1", runner="docker", check=False)
    assert killed
    assert result.returncode == 1
    assert "pipeline distill: " in result.stderr
    steps = told(result)
    (name,) = (name for name in steps if name.startswith("distill "))
    assert "failed" in steps[name][-1]
    assert not [name for name in steps if name in ("benchmark", "report") and "started" in steps[name]]
    again = pipeline(repo, "distill", *slim, "--input", "seed=1", runner="docker")
    assert "steps run 4, finished before 6" in again.stdout  # plan, distill, benchmark, report


def test_an_image_that_lacks_a_part_fails_at_the_step_that_needs_it(repo, contained, image, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image}\nUSER 0\nRUN rm -r /opt/venv/lib/python3.11/site-packages/cliprd/teacher_cache\nUSER 10001\n"
    )
    client = docker.from_env()
    client.images.build(path=str(tmp_path), tag="cliprd-test:lacks-a-part", rm=True)
    try:
        result = pipeline(
            repo,
            "distill",
            "--image",
            "cliprd-test:lacks-a-part",
            "--allow-mutable-image",
            runner="docker",
            check=False,
        )
    finally:
        client.images.remove("cliprd-test:lacks-a-part", force=True)
    assert result.returncode == 1
    assert "teacher_cache" in Path(re.search(r"The complete log: (\S+)", result.stderr)[1]).read_text()
    assert [step for step, lines in told(result).items() if "failed" in lines[-1]]
    assert not [step for step in told(result) if step.startswith(("distill", "report"))]


def test_a_missing_image_or_engine_is_one_clear_line(repo):
    result = pipeline(repo, "distill", "--image", f"cliprd@sha256:{'0' * 64}", runner="docker", check=False)
    assert result.returncode == 5
    assert "make images" in result.stderr or "No Docker engine" in result.stderr
    nowhere = pipeline(repo, "distill", runner="docker", check=False, env={"DOCKER_HOST": "unix:///nowhere.sock"})
    assert nowhere.returncode == 5
    assert "No Docker engine" in nowhere.stderr
    assert "Traceback" not in result.stderr + nowhere.stderr


def test_corrupt_data_fails_at_its_step_and_mended_data_goes_on(repo, tmp_path):
    copy = tmp_path / "repo"
    shutil.copytree(repo, copy, ignore=shutil.ignore_patterns("work", ".git", ".dvc"))
    tar = copy / "data/train/00000.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2 - 100])
    result = pipeline(copy, "distill", check=False)
    assert result.returncode == 1
    assert "00000.tar" in result.stderr
    steps = told(result)
    assert "failed" in steps["prepare"][-1]
    assert not [step for step in steps if step.startswith(("teacher", "cache", "distill"))]


@pytest.fixture
def bucket(tmp_path, repo):
    """A real S3 server that holds data and tasks; gives the bucket's folder and the clients' environment."""
    root = tmp_path / "files" / "bucket"
    root.mkdir(parents=True)
    with s3_server.running(root.parent) as env:
        client = boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_DEFAULT_REGION"],
        )
        for path in (repo / "data").rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "bucket", path.relative_to(repo).as_posix())
        yield root, {**env, "CLIPRD_SCRATCH": str(tmp_path / "scratch")}


def test_a_workflow_of_argo_alone_is_done_by_its_containers_commands(repo, image, bucket, tmp_path):
    root, env = bucket
    overrides = [
        *SMALL[:3], "data.path=s3://bucket/data/train", "benchmark.tasks=s3://bucket/data/benchmark",
        "kubernetes.store=s3://bucket/store", "distill.method=clip_kd",
    ]  # fmt: skip
    spec = yaml.safe_load(compile_argo("distill", params.load(repo / "params.yaml", overrides), image))["spec"]
    given = tmp_path / "params.yaml"
    given.write_text(spec["arguments"]["parameters"][0]["value"], encoding="utf-8")
    given.chmod(0o644)
    for _, (program, *arguments) in commands(spec):
        docker.from_env().containers.run(  # raises where it fails
            image, arguments, entrypoint=program, environment={k: v for k, v in env.items() if k.startswith("AWS_")},
            network_mode="host", user="10001:10001", read_only=True, tmpfs={"/tmp": ""}, cap_drop=["ALL"],
            volumes={str(given): {"bind": PARAMS, "mode": "ro"}}, remove=True,
        )  # fmt: skip
    made = root / "store" / "argo" / "distill"
    student = manifest.verify(made / "students" / "clip_kd-0", stage="distill")
    assert student.params["distill"]["method"] == "clip_kd"
    compared = manifest.verify(made / "reports", stage="compare")
    assert set(json.loads((made / "reports" / "metrics" / "clip_kd.json").read_text())) > {"mean"}
    assert compared.inputs["student/clip_kd-0"] == student.fingerprint


def test_a_retraining_all_of_whose_data_are_in_s3(repo, image, slim, bucket):
    """Streamed, not copied through artifacts; a lost pod's training goes on elsewhere; gated, promoted, recorded."""
    root, env = bucket
    overrides = (
        "data.path=s3://bucket/data/train", "benchmark.tasks=s3://bucket/data/benchmark", "distill.epochs=12",
        "kubernetes.store=s3://bucket/store", "promote.champion=s3://bucket/champion", "promote.allow_guessing=true",
    )  # fmt: skip
    arguments = [part for override in overrides for part in ("--set", override)]

    def retrain(check: bool = True):
        return pipeline(repo, "retrain", *slim, *arguments, runner="docker", check=check, env=env)

    def ending() -> tuple[str, str]:
        newest = max((root / "champion" / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
        found = json.loads((newest / "ending.json").read_text())
        return found["ending"], found["kubeflow"]

    left = []

    def kill(container):
        if "distill" not in " ".join(container.attrs["Config"]["Cmd"]):
            return
        found = sorted(path.name for path in root.glob("store/distill/*/.checkpoint/*.json"))
        if found:
            container.kill()
            left.extend(found)
        elif list(root.glob("store/distill/*/.work.json")):  # it trains: so slowly that its checkpoints can follow
            container.update(cpu_period=100_000, cpu_quota=10_000)

    with docker_engine.watched(image, react=kill):
        failed = retrain(check=False)
    assert left, failed.stdout + failed.stderr
    assert failed.returncode == 1
    assert ending() == ("failed", "FAILED")
    assert not (root / "champion" / "champion.json").exists()
    assert not list(root.glob("store/distill/*/manifest.json"))

    result = retrain()
    assert "finished before 6" in result.stdout  # prepare, teacher, two parts, merge, the teacher's benchmark
    made = last(repo, "docker")
    log = max((repo / ROOM["docker"] / "logs").glob("retrain-*")).read_text()
    first = re.search(r"goes on from step (\d+)", log)
    assert first is not None
    assert int(first[1]) >= int(re.search(r"\d+", left[0])[0])
    assert ending() == ("promoted", "SUCCEEDED")
    champion = json.loads((root / "champion" / "champion.json").read_text())
    assert champion["decision"]["reason"].startswith("there is no champion yet")
    student = root / "champion" / champion["version"] / "student"
    assert manifest.verify(student).fingerprint == manifest.read(made / "distill" / "model").fingerprint

    parts = sorted((repo / ROOM["docker"] / "runs").rglob("location.json"))
    assert {path.parent.name for path in parts} == {"shards", "embeddings"}
    for path in parts:
        assert {file.name for file in path.parent.iterdir()} == {"location.json", "manifest.json"}

    again = retrain()
    assert ending() == ("not promoted", "SUCCEEDED")
    assert "steps run 4, finished before 8" in again.stdout  # plan, gate, refuse, record: this is the champion
    assert json.loads((root / "champion" / "champion.json").read_text()) == champion

    shutil.rmtree(next(root.glob("store/prepare/*")))
    healed = retrain()
    assert "is gone or unfinished" in healed.stdout
    assert manifest.verify(next(root.glob("store/prepare/*")))
