"""Champions in a folder, in S3 and in MLflow's registry on a real server: replaced in one step, by one of several."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cliprd import cli, files, storage
from cliprd.artifact import manifest
from cliprd.errors import InputError, ParamsError, RetryableError
from cliprd.kubeflow import promotion
from cliprd.promotion import champion, gate, package, registry_claims
from cliprd.promotion import registry as backend
from tests.mlflow_server import mlflow_server  # noqa: F401 (a fixture)
from tests.promotion import candidates
from tests.promotion.candidates import ASKED

pytestmark = pytest.mark.integration
LIMIT = 120.0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Method and seed → student, benchmark."""
    root = tmp_path_factory.mktemp("candidates")
    wanted = [("baseline", 0), ("clip_kd", 0), ("clip_kd", 1), ("clip_rd-exp", 0)]
    return {f"{method}-{seed}": candidates.write(root, method, seed) for method, seed in wanted}


@pytest.fixture
def registry(request, mlflow_server, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(registry_claims, "PAUSE", 0.05)
    name = re.sub(r"\W+", "-", request.node.name)
    return f"models:/{name}", mlflow_server.uri


@pytest.fixture(params=["folder", "s3", "registry"])
def where(request, tmp_path, monkeypatch):
    """Place, and the tracking server's address."""
    monkeypatch.setenv("CLIPRD_SCRATCH", str(tmp_path / "scratch"))
    if request.param == "registry":
        return request.getfixturevalue("registry")
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}", ""
    return str(tmp_path / "champion"), ""


def version(where):
    held = champion.current(where[0], candidates.params(*where))
    return held.version if held else None


def publish(where, *folders, champion_then="now", act=champion.publish, **decision):
    """The first is the student's; the others are further seeds."""
    held = version(where) if champion_then == "now" else champion_then
    told = {"passed": True, "champion": held, "reason": "told so", **decision}
    scores = [benchmark for _, benchmark in folders]
    return act(where[0], candidates.params(*where), folders[0][0], scores, told, ASKED)


def rollback(where, **options):
    return champion.rollback(where[0], candidates.params(*where), ASKED, **options)


def test_a_champion_is_replaced_and_brought_back(where, made):
    assert version(where) is None
    with pytest.raises(InputError, match="no champion"):
        rollback(where)
    first = publish(where, made["baseline-0"])
    assert publish(where, made["baseline-0"], champion_then=None) == first  # a repetition of the same promotion
    held = champion.current(where[0], candidates.params(*where))
    assert (held.version, held.withdrawn) == (first, ())
    assert held.lineage["params"] == {"method": "baseline", "seed": 0}
    assert manifest.verify(held.student()).fingerprint == manifest.read(made["baseline-0"][0]).fingerprint
    second = publish(where, made["clip_kd-0"], made["clip_kd-1"])
    assert version(where) == second != first
    found = champion.current(where[0], candidates.params(*where)).benchmarks
    assert [manifest.verify(folder).fingerprint for folder in found] == [
        manifest.read(made[name][1]).fingerprint for name in ("clip_kd-0", "clip_kd-1")
    ]
    third = publish(where, made["clip_rd-exp-0"])
    with pytest.raises(InputError, match=f"{second} has become champion|{third} has become champion"):
        publish(where, made["clip_kd-1"], champion_then=second)  # a gate's word of before
    assert version(where) == third
    assert rollback(where) == second
    withdrawn = champion.current(where[0], candidates.params(*where)).withdrawn
    assert withdrawn == package.marks_of(made["clip_rd-exp-0"][1])
    assert withdrawn[0] == manifest.read(made["clip_rd-exp-0"][0]).fingerprint
    assert len(set(withdrawn)) == 2
    assert rollback(where) == first
    with pytest.raises(InputError, match="none before it"):
        rollback(where)
    with pytest.raises(InputError, match="never champion"):
        rollback(where, to="77")
    assert rollback(where, to=third) == third  # by hand, what was taken out of use comes back
    assert (
        manifest.read(made["clip_rd-exp-0"][0]).fingerprint
        not in champion.current(where[0], candidates.params(*where)).withdrawn
    )
    assert rollback(where) == first


def test_a_refused_one_is_kept_and_changes_nothing(where, made):
    first = publish(where, made["clip_kd-0"])
    refused = publish(where, made["baseline-0"], act=champion.refuse, passed=False, reason="worse")
    assert refused != first
    assert version(where) == first
    with pytest.raises(InputError, match="The gate refused: worse"):
        publish(where, made["baseline-0"], passed=False, reason="worse")
    with pytest.raises(InputError, match="other benchmarks"):
        publish(where, made["baseline-0"], candidate=["0" * 64])
    with pytest.raises(InputError, match="None of the benchmarks"):
        publish(where, (made["baseline-0"][0], made["clip_kd-0"][1]))
    assert version(where) == first


def test_notes_on_runs(where):
    tree = candidates.params(*where)
    assert champion.noted(where[0], tree, "run-1/gate") is None
    champion.note(where[0], tree, "run-1/gate", {"passed": True})
    assert champion.noted(where[0], tree, "run-1/gate") == {"passed": True}


def test_the_registry_tells_of_both_versions_who_asked_and_why(registry, made):
    place, uri = registry
    client, name = MlflowClient(uri), place.removeprefix("models:/")
    first = publish(registry, made["clip_kd-0"])
    refused = publish(registry, made["baseline-0"], act=champion.refuse, passed=False, reason="worse")
    assert publish(registry, made["baseline-0"], act=champion.refuse, passed=False, reason="worse") == refused
    assert [found.version for found in client.search_model_versions(f"name = '{name}'")] == ["2", "1"]
    assert client.get_registered_model(name).aliases == {"champion": first, "candidate": refused}
    candidate, held = (client.get_model_version(name, number) for number in (refused, first))
    assert json.loads(candidate.tags["cliprd.gate"])["reason"] == "worse"
    assert candidate.tags["cliprd.asked_by.who"] == "somebody"
    told = json.loads(held.tags[f"cliprd.challenger.{refused}"])
    assert (told["reason"], told["passed"], told["asked_by"]) == ("worse", False, ASKED)
    assert candidate.description.startswith("# baseline-0\n")
    for line in ("distilled from `aligned`", "1 source files", "samples 640", "## Licences of the training data"):
        assert line in candidate.description


def test_the_command_tells_a_champions_lineage(registry, made, tmp_path, capsys):
    words = [
        "lineage",
        registry[0],
        "--json",
        "--params",
        str(tmp_path / "p.yaml"),
        "--set",
        f"tracking.uri={registry[1]}",
    ]
    (tmp_path / "p.yaml").write_text("")
    assert cli.main(words) == 3
    assert "has no champion" in capsys.readouterr().err
    publish(registry, made["clip_kd-0"])
    assert cli.main(words) == 0
    written = json.loads((made["clip_kd-0"][1] / "lineage.json").read_text())
    assert json.loads(capsys.readouterr().out) == {
        **written,
        "code": "",
        "code_parts": {},
    }  # none was noted


def test_the_version_leads_to_its_training(registry, made, tmp_path):
    place, uri = registry
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment(tmp_path.name))
    student, benchmark = candidates.write(tmp_path, "vrd", 0)
    files.write_json(student / "volatile" / "mlflow.json", {"run_id": run.info.run_id})
    number = publish(registry, (student, benchmark))
    assert client.get_model_version(place.removeprefix("models:/"), number).run_id == run.info.run_id


def client_of(registry):
    return MlflowClient(registry[1]), registry[0].removeprefix("models:/")


def without_pointer(client, name):
    client.delete_registered_model_tag(name, backend.POINTER)


def older(client, name, *versions):
    """As a cliprd without pointer and without the tags `schema` and `promoted` left them."""
    if backend.POINTER in client.get_registered_model(name).tags:
        without_pointer(client, name)
    for number in versions:
        for tag in ("cliprd.schema", "cliprd.promoted"):
            if tag in client.get_model_version(name, number).tags:
                client.delete_model_version_tag(name, number, tag)


LOSSES = {
    "alias deleted": lambda client, name: client.delete_registered_model_alias(name, "champion"),
    "version deleted": lambda client, name: client.delete_model_version(name, "2"),
    "alias on a refused version": lambda client, name: client.set_registered_model_alias(name, "champion", "3"),
    "alias on a version of others": lambda client, name: client.set_registered_model_alias(
        name, "champion", client.create_model_version(name, source="s3://elsewhere/model").version
    ),
}


@pytest.mark.parametrize("by_older", [False, True])
def test_a_lost_pointer_and_alias_are_no_registry_without_a_champion(registry, made, by_older):
    client, name = client_of(registry)
    publish(registry, made["baseline-0"])
    publish(registry, made["clip_kd-0"])
    publish(registry, made["clip_kd-1"], act=champion.refuse, passed=False)
    for loss in sorted(LOSSES, key=lambda loss: loss == "version deleted"):
        older(client, name, "1", "2", "3") if by_older else without_pointer(client, name)
        LOSSES[loss](client, name)
        back = "1" if loss == "version deleted" else "2"
        for act in (
            lambda: version(registry),
            lambda: rollback(registry),
            lambda: publish(registry, made["clip_rd-exp-0"], champion_then=None),
            lambda: publish(registry, made["clip_rd-exp-0"], champion_then=None, act=champion.refuse, passed=False),
        ):
            with pytest.raises(InputError, match=f"cliprd rollback --to {back}"):
                act()
        for wrong in ("3", "9", "../x", f"0{back}", "²"):
            with pytest.raises(InputError, match="never champion"):
                rollback(registry, to=wrong)
        assert rollback(registry, to=back) == version(registry) == back
        assert champions_before(client, name) == (["1"] if back == "2" else [])
    publish(registry, made["clip_rd-exp-0"])
    assert rollback(registry) == "1"


def champions_before(client, name):
    pointer = json.loads(client.get_registered_model(name).tags[backend.POINTER])
    return [entry["version"] for entry in pointer["before"]]


def test_the_pointer_decides_and_the_alias_is_repaired_from_it(registry, made, capsys):
    client, name = client_of(registry)
    publish(registry, made["baseline-0"])
    publish(registry, made["clip_kd-0"])
    publish(registry, made["clip_kd-1"], act=champion.refuse, passed=False)
    losses = {**LOSSES, "alias back by hand": lambda *_: client.set_registered_model_alias(name, "champion", "1")}
    del losses["version deleted"]
    for loss in losses.values():
        loss(client, name)
        client.delete_model_version_tag(name, "2", "cliprd.promoted")
        client.set_model_version_tag(name, "2", "cliprd.before", "77")
        client.set_model_version_tag(name, "2", "cliprd.rolled_back", "{}")
        assert version(registry) == "2"
        champion.tidy(registry[0], candidates.params(*registry))
        assert "repaired what follows from its champion, version 2" in capsys.readouterr().err
        assert client.get_registered_model(name).aliases == {"champion": "2", "candidate": "3"}
        tags = client.get_model_version(name, "2").tags
        assert (tags["cliprd.promoted"], tags["cliprd.before"], "cliprd.rolled_back" in tags) == ("true", "1", False)
    champion.tidy(registry[0], candidates.params(*registry))
    assert capsys.readouterr().err == ""
    LOSSES["version deleted"](client, name)
    with pytest.raises(InputError, match=r"version 2, the champion, was deleted.*cliprd rollback --to 1"):
        version(registry)
    assert rollback(registry, to="1") == version(registry) == "1"


def test_a_model_of_an_older_cliprd_gets_its_pointer(registry, made):
    client, name = client_of(registry)
    for method in ("baseline-0", "clip_kd-0", "clip_rd-exp-0"):
        publish(registry, made[method])
    assert rollback(registry) == "2"
    older(client, name, "1", "2", "3")
    held = champion.current(registry[0], candidates.params(*registry))
    assert (held.version, held.withdrawn) == ("2", package.marks_of(made["clip_rd-exp-0"][1]))
    assert backend.POINTER not in client.get_registered_model(name).tags
    assert rollback(registry, to="3") == "3"
    sealed = json.loads(client.get_registered_model(name).tags[backend.POINTER])
    assert champions_before(client, name) == ["1", "2"]
    assert (sealed["version"], sealed["withdrawn"], sealed["schema"]) == ("3", [], 1)


def test_a_promotion_by_an_older_cliprd_is_not_undone(registry, made):
    """It moved the alias and knew no pointer."""
    client, name = client_of(registry)
    publish(registry, made["baseline-0"])
    sealed = client.get_registered_model(name).tags[backend.POINTER]
    publish(registry, made["clip_kd-0"])
    client.set_registered_model_tag(name, backend.POINTER, sealed)
    for act in (lambda: version(registry), lambda: champion.tidy(registry[0], candidates.params(*registry))):
        with pytest.raises(InputError, match=r"version 2 was promoted by an older cliprd.*cliprd rollback --to 2"):
            act()
    assert rollback(registry, to="2") == version(registry) == "2"
    assert rollback(registry) == "1"


@pytest.mark.parametrize("by_older", [False, True])
def test_a_damaged_pointer_is_refused_and_restored(registry, made, by_older):
    client, name = client_of(registry)
    publish(registry, made["baseline-0"])
    publish(registry, made["clip_kd-0"])
    sealed = client.get_registered_model(name).tags[backend.POINTER]
    if by_older:
        older(client, name, "1", "2")
    for text in (
        "",
        "{",
        "[]",
        sealed.replace('"2"', '"1"'),
        sealed[:-5],
        sealed.replace('"schema":1', '"schema":true'),
    ):
        client.set_registered_model_tag(name, backend.POINTER, text)
        for act in (
            lambda: version(registry),
            lambda: rollback(registry),
            lambda: publish(registry, made["clip_rd-exp-0"], champion_then="2"),
        ):
            with pytest.raises(InputError, match=f"tag {backend.POINTER} is damaged.*cliprd rollback --to 2"):
                act()
        assert client.get_registered_model(name).tags[backend.POINTER] == text
    client.set_registered_model_tag(name, backend.POINTER, sealed.replace('"schema":1', '"schema":2'))
    with pytest.raises(InputError, match="has schema 2"):
        rollback(registry, to="2")
    client.set_registered_model_tag(name, backend.POINTER, "{")
    assert rollback(registry, to="2") == version(registry) == "2"
    assert rollback(registry) == "1"


def test_a_long_history_fits_into_a_tag():
    """MLflow's database holds 5,000 characters; the withdrawn stay, as the gate refuses them."""
    old, gone = (
        [{"version": str(number), "marks": ["x" * 64]} for number in range(start, start + 90)] for start in (1000, 2000)
    )
    text = backend._short(
        {"version": "3", "before": 4 * old, "withdrawn": gone, "rolled_back_by": {"who": "x", "what": "y" * 5000}}
    )
    kept = json.loads(text)
    assert len(text) <= backend.MOST_POINTER
    assert kept["before"][-1] == {"version": "1089"}
    assert kept["withdrawn"] == [{"version": each["version"]} for each in gone]


def test_the_only_champions_alias_is_lost(registry, made):
    client, name = client_of(registry)
    publish(registry, made["baseline-0"])
    for by_older in (False, True):
        older(client, name, "1") if by_older else without_pointer(client, name)
        client.delete_registered_model_alias(name, "champion")
        with pytest.raises(InputError, match="cliprd rollback --to 1"):
            version(registry)
        assert rollback(registry, to="1") == "1"
    client.delete_registered_model(name)
    assert version(registry) is None  # nothing is left that could tell


def test_a_killed_first_promotion_is_no_lost_champion(registry, made, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish(registry, made["baseline-0"])
    assert version(registry) is None
    assert publish(registry, made["clip_kd-0"]) == "2"


def test_a_promotion_killed_after_the_pointer_is_completed(registry, made, monkeypatch):
    client, name = client_of(registry)
    with monkeypatch.context() as patch:
        patch.setattr(backend.Registry, "_show", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish(registry, made["baseline-0"])
    assert version(registry) == "1"
    assert client.get_registered_model(name).aliases == {"candidate": "1"}
    champion.tidy(registry[0], candidates.params(*registry))
    assert client.get_registered_model(name).aliases == {"champion": "1"}
    assert "cliprd.promoted" in client.get_model_version(name, "1").tags


def test_of_two_that_settle_at_once_the_newest_pointer_stays_shown(registry, made, monkeypatch):
    """The first is held up between its pointer and the alias; meanwhile another is promoted after it."""
    client, name = client_of(registry)
    publish(registry, made["baseline-0"])
    show = backend.Registry._show

    def held_up(store, pointer):
        with monkeypatch.context() as patch:
            patch.setattr(backend.Registry, "_show", show)
            if pointer["version"] == "2" and not seen:
                seen.append(publish(registry, made["clip_rd-exp-0"]))
            return show(store, pointer)

    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(backend.Registry, "_show", held_up)
        publish(registry, made["clip_kd-0"])
    assert seen == ["3"]
    assert version(registry) == "3"
    assert client.get_registered_model(name).aliases == {"champion": "3"}


def test_a_version_that_holds_another_student_is_refused(registry, made):
    client, name = client_of(registry)
    publish(registry, made["baseline-0"])
    publish(registry, made["clip_kd-0"])
    client.set_model_version_tag(name, "2", "cliprd.version", "f" * 20)
    with pytest.raises(InputError, match="version 2 holds another student"):
        version(registry)
    assert rollback(registry, to="1") == "1"


@pytest.mark.parametrize(
    ("tag", "texts"),
    {
        "cliprd.benchmarks": ["", "x", "0", "-1", "1e3", "٣"],
        "cliprd.marks": ["", "[", "{}", "[1]", "[" * 100_000],
    }.items(),
)
def test_a_tag_that_was_damaged_is_named(registry, made, tag, texts):
    client, name = client_of(registry)
    publish(registry, made["baseline-0"])
    publish(registry, made["clip_kd-0"])
    for text in texts:
        client.set_model_version_tag(name, "2", tag, text[:1000])
        with pytest.raises(InputError, match=f"models:/{name}: tag {tag} of version 2 is damaged"):
            version(registry)
    assert rollback(registry, to="1") == "1"


def test_a_damaged_way_back_does_not_hide_the_champions(registry, made):
    client, name = client_of(registry)
    publish(registry, made["baseline-0"])
    publish(registry, made["clip_kd-0"])
    for text in ("x", "-1", "1.5", "[]"):
        client.set_model_version_tag(name, "1", "cliprd.before", text)
        without_pointer(client, name)
        with pytest.raises(InputError, match=r"version 9 was never champion\. Those were 2, 1"):
            rollback(registry, to="9")
        assert rollback(registry) == "1"
        assert rollback(registry, to="2") == "2"


def test_tags_that_two_write_at_once_are_written(registry, made):
    """MLflow's database refuses the second of two that insert one tag at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    client, name = client_of(registry)
    publish(registry, made["baseline-0"])
    place = backend.Registry(registry[0], candidates.params(*registry))
    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            tags = {f"both{number}": "the same"}
            list(pool.map(lambda _, tags=tags: place.tag("1", **tags), range(2)))
    assert sum(key.startswith("cliprd.both") for key in client.get_model_version(name, "1").tags) == 20


def test_what_is_registered_twice_at_once_is_one_version(registry, made):
    from concurrent.futures import ThreadPoolExecutor

    def register(_):
        return publish(registry, made["clip_kd-0"], act=champion.refuse, champion_then=None, passed=False)

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(register, range(2))) == {"1"}
    found = MlflowClient(registry[1]).search_model_versions(f"name = '{registry[0].removeprefix('models:/')}'")
    assert [one.version for one in found] == ["1"]


def test_a_pipelines_steps_promote_in_the_registry(registry, made, tmp_path):
    sections = {"promote": {"champion": registry[0]}, "tracking": {"uri": registry[1]}}
    student, benchmark = map(str, made["clip_kd-0"])
    decided = promotion.gate(sections, benchmark, str(tmp_path / "gate"), run_name="run-1")
    assert decided.facts["passed"] is True
    assert promotion.promote(sections, student, benchmark, str(tmp_path / "gate"), run_name="run-1") == "1"
    told = promotion.record(sections, str(tmp_path / "text"), run_name="run-1", state="SUCCEEDED", error="")
    assert told == "promoted"
    assert champion.noted(registry[0], candidates.params(*registry), "run-1/ending")["ending"] == "promoted"
    asked = MlflowClient(registry[1]).get_model_version(registry[0].removeprefix("models:/"), "1").tags
    assert asked["cliprd.asked_by.what"] == "Kubeflow run run-1"


def promoting(registry, folders, who, **files):
    task = {
        "place": registry[0], "uri": registry[1], "student": str(folders[0]), "benchmark": str(folders[1]),
        "champion": "1", "asked_by": {"who": who, "what": "a race"},
        **{name: str(path) for name, path in files.items()},
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.promotion.candidates", json.dumps(task)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[2])


def wait_for(what):
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def claims(registry):
    client = MlflowClient(registry[1])
    return registry_claims._claims(client, registry[0].removeprefix("models:/"))


@pytest.mark.parametrize("first", ["clip_kd-0", "clip_rd-exp-0"])
def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(registry, made, tmp_path, first):
    """The first is stopped where it is about to win; the other, of an earlier or a later version, comes meanwhile."""
    (second,) = {"clip_kd-0", "clip_rd-exp-0"} - {first}
    publish(registry, made["baseline-0"])
    for name in ("clip_kd-0", "clip_rd-exp-0"):  # versions 2 and 3
        publish(registry, made[name], act=champion.refuse, passed=False)
    winner = promoting(registry, made[first], "Ada", stop=tmp_path)
    wait_for((tmp_path / "inside").exists)
    loser = promoting(registry, made[second], "Bob", looked=tmp_path / "looked")
    wait_for((tmp_path / "looked").exists)
    assert version(registry) == "1"
    (tmp_path / "go").touch()
    won, lost = (json.loads(process.communicate(timeout=LIMIT)[0]) for process in (winner, loser))
    assert won == {"version": {"clip_kd-0": "2", "clip_rd-exp-0": "3"}[first]}
    assert version(registry) == won["version"]
    assert lost["code"] == InputError.exit_code
    assert f"version {won['version']} has become champion" in lost["error"]
    assert "asked for by Ada (a race)" in lost["error"]
    assert not claims(registry)


def test_never_do_two_hold_a_claim(registry, made):
    """Several at once, with equal, earlier and later versions, again and again."""
    from concurrent.futures import ThreadPoolExecutor

    publish(registry, made["baseline-0"])
    publish(registry, made["clip_kd-0"], act=champion.refuse, passed=False)
    client, name, inside, entered = MlflowClient(registry[1]), registry[0].removeprefix("models:/"), set(), []

    def work(number):
        for _ in range(3):
            with registry_claims.claimed(client, name, "12"[number % 2], ASKED):
                inside.add(number)
                entered.append(set(inside))
                time.sleep(0.02)
                inside.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert [len(seen) for seen in entered] == [1] * 12
    assert not claims(registry)


def patiently(work):
    """Again while the machine is too busy for a short lease."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            return work()
        except RetryableError:
            if time.monotonic() > end:
                raise


def test_a_killed_promotion_changes_nothing_and_heals(registry, made, tmp_path, monkeypatch):
    publish(registry, made["baseline-0"])
    killed = promoting(registry, made["clip_kd-0"], "Ada", stop=tmp_path)
    wait_for((tmp_path / "inside").exists)
    killed.send_signal(signal.SIGKILL)
    killed.wait(LIMIT)
    killed.stdout.close()
    assert version(registry) == "1"
    assert len(claims(registry)) == 1
    monkeypatch.setattr(registry_claims, "LEASE", 6.0)
    assert patiently(lambda: publish(registry, made["clip_kd-0"])) == "2"
    assert version(registry) == "2"
    assert not claims(registry)


def test_what_is_damaged_here_is_fetched_again_and_what_is_not_ours_is_told(registry, made):
    tree = candidates.params(*registry)
    publish(registry, made["clip_kd-0"])
    held = champion.current(registry[0], tree)
    (held.benchmarks[0] / "results.json").write_text("{}")
    assert manifest.verify(champion.current(registry[0], tree).benchmarks[0])
    client, name = MlflowClient(registry[1]), registry[0].removeprefix("models:/")
    with pytest.raises(ParamsError, match=r"needs tracking\.uri"):
        champion.current(registry[0], candidates.params(registry[0]))
    client.delete_model_version_tag(name, "1", "cliprd.version")
    with pytest.raises(InputError, match="version 1, which cliprd has not registered"):
        champion.current(registry[0], tree)


def test_one_of_many_swaps_wins(tmp_path, bucket):
    from concurrent.futures import ThreadPoolExecutor

    for place in (str(tmp_path / "file"), f"{bucket}/{tmp_path.name}/file"):
        for before in (None, b"won 0"):
            if before:
                storage.write_bytes(place, before)
            with ThreadPoolExecutor(8) as pool:
                tries = [pool.submit(storage.swap, place, f"{i}".encode(), instead_of=before) for i in range(8)]
            won = [attempt.result() for attempt in tries]
            assert sum(won) == 1
            assert storage.read_bytes(place) == f"{won.index(True)}".encode()
        assert storage.swap(place, b"x", instead_of=b"another") is False


@pytest.fixture
def unwell():
    """A server that answers everything with 503."""
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503)
            self.end_headers()

        do_POST = do_PATCH = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_registry_that_does_not_answer_is_not_one_without_a_champion(unwell, made, tmp_path, monkeypatch):
    """Else every candidate would be the first, and pass."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    student, benchmark = made["clip_kd-0"]
    for uri in (unwell, "http://127.0.0.1:9"):
        where = ("models:/any", candidates.params("models:/any", uri))
        for call in (
            lambda where=where: champion.current(*where),
            lambda where=where: champion.rollback(*where, ASKED),
            lambda where=where: champion.publish(
                *where, student, [benchmark], {"passed": True, "reason": "", "champion": None}, ASKED
            ),
            lambda where=where: gate.run(where[1], {"candidate": benchmark}, tmp_path / "gate"),
        ):
            with pytest.raises(RetryableError):
                call()
