"""A job is submitted, followed and removed, at an API whose engine the test plays."""

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kubernetes import client

from cliprd import params
from cliprd.errors import DivergedError, InputError, MachineError, RetryableError
from cliprd.kubeflow.trainjob import watch
from cliprd.kubeflow.trainjob.cluster import PODS, Cluster
from cliprd.kubeflow.trainjob.spec import job_objects
from tests.kubeflow.paths import IMAGE, ROOT
from tests.kubeflow.trainjob import clusters

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),
]


@pytest.fixture(scope="module", params=["stand_in", "real"])
def host(request, tmp_path_factory):
    arguments = [tmp_path_factory.mktemp("cluster")] if request.param == "real" else []
    with getattr(clusters, request.param)(*arguments) as found:
        yield found


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.05)


def manifests(form="trainjob", seed=0):
    tree = params.load(ROOT / "params.yaml", [f"distill.seed={seed}"])
    folders = {name: f"s3://pairs/{name}" for name in ("shards", "cache", "output")}
    return job_objects(tree, IMAGE, nodes=2, form=form, **folders)


@pytest.fixture
def start(host):
    """Runs a job in a thread; gives the future and its engine."""
    engines, ended = [], threading.Event()
    pool = ThreadPoolExecutor()

    def run(trees):
        engines.append(clusters.Engine(host, trees[-1]))
        cluster = Cluster(clusters.connect(host), "default")
        return pool.submit(watch.run_job, cluster, trees), engines[-1]

    def collect():
        while not ended.wait(0.1):
            for engine in list(engines):
                with contextlib.suppress(client.ApiException):  # a trouble that a test has switched on
                    engine.collect()

    thread = threading.Thread(target=collect)
    thread.start()
    yield run
    pool.shutdown()
    ended.set()
    thread.join()
    for engine in engines:
        engine.forget()


def label(trees):
    return PODS[trees[-1]["kind"]]


def terminated(code, message):
    return {"terminated": {"exitCode": code, "message": message, "reason": "Error"}}


def status(code, message="", again=0):
    one = {"name": "node", "image": "x", "imageID": "x", "ready": False, "restartCount": again, "lastState": {}}
    state = terminated(code, message)
    where = {"state": {"running": {}}, "lastState": state} if again else {"state": state}
    return {"phase": "Running" if again else "Failed", "containerStatuses": [{**one, **where}]}


@pytest.mark.parametrize(("form", "word"), [("trainjob", "Complete"), ("pytorchjob", "Succeeded")])
def test_success(start, capsys, form, word):
    trees = manifests(form, seed=1)
    ran, engine = start(trees)
    engine.await_job()
    engine.pod("one", label(trees), status(75, "cliprd: error: Rank 1 lost contact.", again=1))
    time.sleep(0.5)
    engine.condition(word)
    assert ran.result(10) is None
    said = capsys.readouterr().err
    assert "is submitted" in said
    assert "one: running, restarted 1 times" in said  # what may heal is the engine's to try again


@pytest.mark.parametrize(("code", "kind"), [(3, InputError), (4, DivergedError)])
@pytest.mark.parametrize("form", ["trainjob", "pytorchjob"])
def test_what_cannot_heal_ends_the_job_at_once_with_its_own_words(start, form, code, kind):
    trees = manifests(form, seed=10 + code)
    ran, engine = start(trees)
    engine.await_job()
    log = (
        "cliprd: error: Rank 1 lost contact.\nmore\ncliprd: error: /data/cache is of other shards. Run `cliprd cache`."
    )
    engine.pod(f"bad-{form}-{code}", label(trees), status(code, log, again=1))
    with pytest.raises(kind, match=rf"Pod bad-{form}-{code}: /data/cache is of other shards\. Run `cliprd cache`\."):
        ran.result(10)
    for _ in range(100):
        if engine.found() is None:
            return
        time.sleep(0.05)
    raise AssertionError("the job is still there")


def test_an_engine_that_gives_up_may_be_asked_again(start):
    trees = manifests(seed=20)
    ran, engine = start(trees)
    engine.await_job()
    engine.pod("lost", label(trees), status(75, "cliprd: error: The machines have not met."))
    time.sleep(0.2)
    engine.condition("Failed", "BackoffLimitExceeded", "Job has reached the limit.")
    with pytest.raises(RetryableError, match=r"BackoffLimitExceeded.*Pod lost: The machines have not met\."):
        ran.result(10)
    first = engine.found()["metadata"]["uid"]
    ran, engine = start(trees)
    engine.await_job(other_than=first)  # the next try makes it anew
    engine.condition("Complete")
    assert ran.result(30) is None


def test_a_job_that_still_runs_is_followed_on(start, capsys):
    trees = manifests(seed=30)
    first, engine = start(trees)
    made = engine.await_job()
    again, _ = start(trees)
    time.sleep(0.5)
    engine.condition("Complete")
    assert (first.result(10), again.result(10)) == (None, None)
    assert engine.found()["metadata"]["uid"] == made["metadata"]["uid"]
    assert "there already and runs" in capsys.readouterr().err


def test_a_job_that_others_remove(start):
    ran, engine = start(manifests(seed=40))
    engine.await_job()
    engine.forget()
    with pytest.raises(RetryableError, match="removed by others"):
        ran.result(10)


def test_a_signal_to_end_removes_the_job(start, host):
    trees = manifests(seed=50)
    engine = clusters.Engine(host, trees[-1])

    def end():
        engine.await_job()
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(watch.Cancelled):
        watch.run_job(Cluster(clusters.connect(host), "default"), trees)
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    engine.collect()
    assert engine.found() is None


def test_without_rights_it_says_which_are_needed(host):
    with pytest.raises(MachineError, match="needs the right to create, get and delete trainjobs"):
        watch.run_job(Cluster(clusters.connect(host, clusters.NO_RIGHTS), "default"), manifests(seed=60))


def test_an_engine_that_is_not_there_and_an_api_that_is_away(monkeypatch, start, host):
    if host.startswith("https"):
        pytest.skip("of the stand-in only")
    server = clusters.server(host)
    server.unknown = {"trainjobs", "trainingruntimes"}
    with pytest.raises(MachineError, match="knows no such jobs"):
        watch.run_job(Cluster(clusters.connect(host), "default"), manifests(seed=70))
    server.unknown = set()
    ran, engine = start(manifests(seed=71))
    engine.await_job()
    server.down = True
    time.sleep(0.5)
    server.down = False
    engine.condition("Complete")
    assert ran.result(10) is None
    monkeypatch.setattr(watch, "LOST_SECONDS", 0.2)
    ran, engine = start(manifests(seed=72))
    engine.await_job()
    server.down = True
    with pytest.raises(RetryableError, match="cannot answer now"):
        ran.result(10)
    server.down = False
