"""Argo's nodes: forms, places, turns and names of pods, on real workflows and on those of the tests' builder."""

import base64
import gzip
import json

import pytest

from cliprd.errors import InputError
from cliprd.kubeflow.workflow import read_workflow
from tests.kubeflow.argo import CACHED, RECORDED, Argo, identity, recorded

NAMES = sorted(path.name.removesuffix(".json.gz") for path in RECORDED.glob("*.gz"))


def raw_nodes(manifest: dict) -> dict:
    return manifest["status"].get("nodes") or read_raw(manifest["status"]["compressedNodes"])


def read_raw(text: str) -> dict:
    return json.loads(gzip.decompress(base64.b64decode(text)))


@pytest.mark.parametrize("name", NAMES)
def test_a_pod_has_the_name_under_which_argo_archived_its_log(name):
    manifest = recorded(name)
    pods = {node.pod for node in read_workflow(manifest).nodes if node.pod}
    keys = [
        artifact["s3"]["key"].split("/")
        for node in raw_nodes(manifest).values()
        if node["type"] == "Pod"
        for artifact in node.get("outputs", {}).get("artifacts", [])
        if artifact["name"] == "main-logs"
    ]
    assert len(keys) >= 2
    assert {key[-2] for key in keys} <= pods
    retries = {node.pod for node in read_workflow(manifest).nodes if node.kind != "Pod"}
    assert retries == {""}


def test_the_pods_of_old_argo_have_the_nodes_identities():
    manifest = recorded("distill-failed-in-plan")
    manifest["metadata"]["annotations"]["workflows.argoproj.io/pod-name-format"] = "v1"
    pods = {node.pod for node in read_workflow(manifest).nodes if node.pod}
    assert pods == {key for key, node in manifest["status"]["nodes"].items() if node["type"] == "Pod"}


def test_a_long_name_of_a_pod_is_cut_before_its_hash():
    built = Argo(name="w" * 250)
    (pod,) = {node.pod for node in read_workflow(built.manifest()).nodes if node.pod}
    assert len(pod.rpartition("-")[0]) == 242
    assert pod.endswith(identity("", f"{'w' * 250}(0).root-driver(0)"))


def test_places_have_no_attempts_and_turns_have_them():
    nodes = read_workflow(recorded("distill-running-pod-deleted")).nodes
    (pod,) = [node for node in nodes if node.message == "pod deleted"]
    assert pod.place == ("root", "distill", "executor")
    assert pod.turn == (0, 0, 0, 0)  # of the whole, of root, of distill, of its own
    loop = ("root", "for-loop-1", "iteration-iterations(1:1)", "iteration-item", "cache")
    assert loop in {node.place for node in nodes}


def test_every_recorded_node_but_the_whole_has_a_place():
    for name in NAMES:
        workflow = read_workflow(recorded(name))
        assert {node.kind for node in workflow.nodes if not node.place} == {"Retry", "DAG"}
        assert sum(not node.place for node in workflow.nodes) == 2


@pytest.mark.parametrize("form", ["plain", "compressed"])
@pytest.mark.parametrize("defaults", [True, False])
def test_both_forms_give_the_same_nodes(form, defaults):
    built = Argo(defaults=defaults)
    built.root.task("plan", "Succeeded", retries=False)
    assert read_workflow(built.manifest(form=form)) == read_workflow(built.manifest())
    assert len(read_workflow(built.manifest(form=form)).nodes) == len(built.nodes)


def test_the_compressed_run_has_all_of_its_nodes():
    compressed = read_workflow(recorded("ablation-succeeded-compressed"))
    assert len(compressed.nodes) == 112
    assert set(compressed.nodes) == set(read_workflow(recorded("ablation-succeeded-as-the-v1-api-gives-it")).nodes)


def test_offloaded_nodes_are_known_to_be_elsewhere():
    assert read_workflow(Argo().manifest(form="offloaded")).offloaded
    assert not read_workflow(Argo().manifest()).offloaded
    assert not read_workflow({"metadata": {"name": "x"}, "status": {}}).offloaded


@pytest.mark.parametrize("text", ["not base64!", base64.b64encode(b"not gzip").decode(),
                                  base64.b64encode(gzip.compress(b"{}" * 99)[:20]).decode()],
                         ids=["no base64", "no gzip", "cut"])  # fmt: skip
def test_damaged_nodes_are_an_error(text):
    with pytest.raises(InputError, match="compressedNodes cannot be read"):
        read_workflow({"metadata": {"name": "x"}, "status": {"compressedNodes": text}})


def test_an_exit_handler_is_no_attempt_of_what_it_follows():
    built = Argo()
    inner = built.root.graph("exit-handler-1")
    inner.task("plan", ("Error", "pod deleted"), retries=False)
    built.root.on_exit("exit-handler-1").task("record", "Running")
    nodes = read_workflow(built.manifest()).nodes
    (record,) = [node for node in nodes if node.place[-2:] == ("record", "executor") and node.kind == "Pod"]
    assert record.place == ("root", "exit-handler-1.onExit", "record", "executor")
    assert all(turn == 0 for node in nodes for turn in node.turn)


SHAPE = ("name", "displayName", "type", "phase", "templateName", "boundaryID", "nodeFlag")


def shape(node: dict) -> dict:
    return {key: node.get(key) or None for key in SHAPE}


def test_the_builder_makes_what_argo_made():
    """Of a pending run: every node; of a run with a loop: those of its own graph and of the loop."""
    manifest = recorded("distill-pending-secret-missing")
    real = manifest["status"]["nodes"]
    built = Argo(name=manifest["metadata"]["name"])
    message = 'CreateContainerConfigError: secret "cliprd-s3-missing" not found'
    built.root.task("plan", ("Pending", message), retries=False)
    assert {key: shape(node) for key, node in built.nodes.items()} == {key: shape(node) for key, node in real.items()}

    manifest = recorded("distill-all-cached")
    real = manifest["status"]["nodes"]
    built = Argo(name=manifest["metadata"]["name"])
    root = built.root
    root.task("plan", "Succeeded", retries=False)
    for name in ("prepare", "teacher"):
        root.task(name, CACHED)
    for iteration in root.loop("for-loop-1", 2):
        iteration.task("cache", CACHED)
    for name in ("benchmark-teacher", "merge", "distill", "benchmark", "report"):
        root.task(name, CACHED)
    built.manifest("Succeeded")
    assert {key: shape(node) for key, node in built.nodes.items()} == {key: shape(node) for key, node in real.items()}
