"""The steps of a run, from real and built workflows, whatever levels of Retry, DAG and TaskGroup lie between."""

from types import SimpleNamespace

import pytest

from cliprd.kubeflow.details import steps_of_details
from cliprd.kubeflow.outline import Outline
from cliprd.kubeflow.run_steps import innermost_failure, run_steps
from cliprd.kubeflow.submit import Submission, compile_submission
from cliprd.kubeflow.workflow import read_workflow
from cliprd.params import Kubernetes
from tests.kubeflow.argo import CACHED, Argo, recorded, v2_details
from tests.kubeflow.paths import IMAGE, ROOT

EVERY = pytest.mark.parametrize("defaults", [True, False], ids=["templateDefaults", "plain"])


def outline(name="distill", **arguments) -> Outline:
    text = (ROOT / "pipelines" / "compiled" / f"{name}.yaml").read_text()
    return Outline(Submission(name, text, arguments, IMAGE, Kubernetes()))


def steps(manifest: dict, name: str = "distill", **arguments) -> dict:
    """Label → step, without the drivers of loops and the whole."""
    made = run_steps(read_workflow(manifest), outline(name, **arguments))
    assert len({step.label for step in made}) == len(made)
    return {step.label: step for step in made if step.task or step.state not in ("starting", "succeeded")}


def states(manifest: dict, name: str = "distill", **arguments) -> dict[str, str]:
    return {label: step.state for label, step in steps(manifest, name, **arguments).items()}


def test_a_first_run():
    found = steps(recorded("distill-succeeded"))
    assert list(found) == [
        "plan", "prepare", "teacher", "benchmark-teacher", "cache (1)", "cache (2)", "merge", "distill", "benchmark",
        "report",
    ]  # fmt: skip
    assert {step.state for step in found.values()} == {"succeeded"}
    assert found["teacher"].seconds == 145


def test_a_run_from_the_cache():
    found = states(recorded("distill-all-cached"))
    assert found.pop("plan") == "succeeded"
    assert len(found) == 9
    assert set(found.values()) == {"cached"}


@pytest.mark.parametrize("name", ["ablation-succeeded-compressed", "ablation-succeeded-as-the-v1-api-gives-it"])
def test_iterations_are_named_after_their_own_loop(name):
    runs = [{"method": "clip_kd-raw", "seed": 0.0}, {"method": "vrd-exp", "seed": 1.0}]
    found = states(recorded(name), "ablation", runs=runs)
    assert set(found) == {
        "plan", "prepare", "teacher", "benchmark-teacher", "cache (1)", "cache (2)", "merge", "compare",
        "distill (clip_kd-raw-0)", "distill (vrd-exp-1)", "benchmark (clip_kd-raw-0)", "benchmark (vrd-exp-1)",
    }  # fmt: skip
    assert set(found.values()) == {"succeeded"}


def test_a_failed_step():
    found = steps(recorded("distill-failed-in-plan"))
    assert list(found) == ["plan"]
    assert found["plan"].state == "failed"
    assert "NoSuchBucket" in found["plan"].message


@pytest.mark.parametrize(
    ("name", "message"),
    [("secret-missing", "CreateContainerConfigError: secret"), ("unschedulable", "Unschedulable: 0/1 nodes")],
)
def test_a_pod_that_cannot_start_is_pending(name, message):
    step = steps(recorded(f"distill-pending-{name}"))["plan"]
    assert step.state == "pending"
    assert step.message.startswith(message)


def test_a_deleted_pod_is_repeated():
    step = steps(recorded("distill-running-pod-deleted"))["distill"]
    assert (step.state, step.attempt, step.message, step.backoff) == (
        "retrying", 1, "pod deleted", "Backoff for 30 seconds",
    )  # fmt: skip
    assert [pod.pod for _, pod in step.lost] == ["cliprd-distill-75ghf-retry-system-container-impl-1621977945"]


@EVERY
@pytest.mark.parametrize(
    ("pods", "final", "state", "attempt"),
    [
        (["Pending"], True, "pending", 1),
        (["Running"], True, "running", 1),
        (["Succeeded"], True, "succeeded", 1),
        ([CACHED], True, "cached", 1),
        (["Error"], False, "retrying", 1),
        (["Error", "Pending"], True, "pending", 2),
        (["Error", "Failed", "Running"], True, "running", 3),
        (["Error", "Failed", "Succeeded"], True, "succeeded", 3),
        (["Error", "Failed", "Failed"], True, "failed", 3),
    ],
)
def test_every_state_and_attempt(defaults, pods, final, state, attempt):
    built = Argo(defaults=defaults)
    built.root.task("teacher", *pods, final=final)
    step = steps(built.manifest())["teacher"]
    assert (step.state, step.attempt) == (state, attempt)
    assert len(step.lost) == sum(pod in ("Error", "Failed") for pod in pods)


@EVERY
@pytest.mark.parametrize(
    ("driver", "state"), [("Pending", "starting"), ("Running", "starting"), ("Failed", "failed"), ("Error", "failed")]
)
def test_a_driver_is_part_of_its_step(defaults, driver, state):
    built = Argo(defaults=defaults)
    built.root.task("teacher", driver=driver)
    step = steps(built.manifest())["teacher"]
    assert (step.state, step.driver) == (state, True)
    assert "system-container-driver" in step.node.pod


@EVERY
def test_steps_between_a_task_and_its_pod_make_no_difference(defaults):
    """Argo's other composite templates: Steps, with a StepGroup a stage."""
    built = Argo(defaults=defaults)
    built.root.task("teacher", ("Error", "pod deleted"), "Running")
    manifest = built.manifest()
    nodes = manifest["status"]["nodes"]
    (around,) = [node for node in nodes.values() if node["type"] == "DAG" and "teacher" in node["displayName"]]
    around["type"] = "Steps"
    group = {**around, "id": "x-1", "name": f"{around['name']}[0]", "displayName": "[0]", "type": "StepGroup"}
    nodes["x-1"] = {**group, "boundaryID": around["id"], "children": around["children"]}
    around["children"] = ["x-1"]
    step = steps(manifest)["teacher"]
    assert (step.state, step.attempt, len(step.lost)) == ("running", 2, 1)


def test_a_driver_that_is_repeated():
    built = Argo()
    built.root.task("teacher", driver=[("Error", "pod deleted"), "Running"])
    step = steps(built.manifest())["teacher"]
    assert (step.state, step.attempt, step.last_lost.message) == ("starting", 2, "pod deleted")


@EVERY
@pytest.mark.parametrize("driver", ["Pending", "Failed"])
def test_the_root_driver_is_a_node_like_others(defaults, driver):
    (step,) = run_steps(read_workflow(Argo((driver, "why"), defaults=defaults).manifest()), outline())
    assert step.label == "root-driver"
    assert step.state == {"Pending": "starting", "Failed": "failed"}[driver]
    assert step.message == "why"
    assert "system-dag-driver" in step.node.pod


def test_a_pipeline_that_argo_began_once_more():
    """With a strategy on every template a pod in error may repeat the graph around it, too."""
    built = Argo()
    built.root.task("plan", "Succeeded", retries=False)
    built.root.task("teacher", ("Error", "pod deleted"), ("Error", "pod deleted"))
    again = built.another_root()
    again.task("plan", "Succeeded", retries=False)
    again.task("teacher", driver="Pending")
    found = steps(built.manifest())
    assert {label: step.state for label, step in found.items()} == {"plan": "succeeded", "teacher": "starting"}
    again.task("teacher", "Running")
    found = steps(built.manifest())
    assert (found["teacher"].state, found["teacher"].attempt) == ("running", 3)
    assert [number for number, _ in found["teacher"].lost] == [1, 2]
    assert found["plan"].state == "succeeded"


@EVERY
@pytest.mark.parametrize("count", [1, 20])
def test_loops_of_any_length(defaults, count):
    runs = [{"method": "clip_kd-raw", "seed": seed} for seed in range(count)]
    built = Argo(defaults=defaults)
    for iteration in built.root.loop("for-loop-1", count):
        iteration.task("cache", "Succeeded")
    for iteration in built.root.loop("for-loop-2", count):
        iteration.task("distill", ("Error", "pod deleted"), "Running")
    found = steps(built.manifest(form="compressed"), "ablation", runs=runs)
    assert {label for label, step in found.items() if step.state == "succeeded"} == {
        f"cache ({number + 1})" for number in range(count)
    }
    assert {label: step.attempt for label, step in found.items() if step.state == "running"} == {
        f"distill (clip_kd-raw-{seed})": 2 for seed in range(count)
    }


def test_iterations_of_equal_items_have_numbers():
    twice = [{"method": "clip_kd-raw", "seed": 0}] * 2
    built = Argo()
    for iteration in built.root.loop("for-loop-2", 2):
        iteration.task("distill", "Running")
    assert list(states(built.manifest(), "ablation", runs=twice)) == ["distill (1)", "distill (2)"]


@EVERY
def test_a_condition_that_is_not_met_leaves_its_steps_out(defaults):
    built = Argo(defaults=defaults)
    inner = built.root.graph("exit-handler-1")
    inner.task("gate", "Succeeded")
    publish = inner.graph("condition-3")
    publish.left_out("condition-4")
    publish.graph("condition-5").task("refuse", "Running")
    assert states(built.manifest(), "retrain") == {"gate": "succeeded", "promote": "skipped", "refuse": "running"}


@EVERY
def test_an_outer_condition_leaves_out_all_that_is_inside(defaults):
    built = Argo(defaults=defaults)
    built.root.graph("exit-handler-1").left_out("condition-3")
    assert states(built.manifest(), "retrain") == {"promote": "skipped", "refuse": "skipped"}


@EVERY
def test_an_exit_handler_and_what_it_is_for(defaults):
    built = Argo(defaults=defaults)
    inner = built.root.graph("exit-handler-1")
    inner.task("plan", ("Failed", "main: Error (exit code 3)"), retries=False)
    inner.omit("prepare", "teacher")
    built.root.on_exit("exit-handler-1").task("record", "Running")
    assert states(built.manifest(), "retrain") == {"plan": "failed", "record": "running"}


@EVERY
@pytest.mark.parametrize("how", [{"activeDeadlineSeconds": 0}, {"shutdown": "Terminate"}])
@pytest.mark.parametrize(
    "message", ["Step exceeded its deadline", "workflow shutdown with strategy: Terminate", "Error (exit code 143)"]
)
def test_what_somebody_ended_has_not_failed(defaults, how, message):
    built = Argo(defaults=defaults)
    built.root.task("plan", "Succeeded", retries=False)
    built.root.task("teacher", ("Failed", message))
    assert states(built.manifest("Failed", **how)) == {"plan": "succeeded", "teacher": "canceled"}
    assert states(built.manifest("Failed"))["teacher"] == "failed"


def test_what_failed_before_somebody_ended_the_run_has_failed():
    built = Argo()
    built.root.task("teacher", ("Failed", "main: Error (exit code 3): no weights"))
    assert states(built.manifest("Failed", activeDeadlineSeconds=0)) == {"teacher": "failed"}


def test_the_reason_of_a_graph_that_could_not_be_made():
    built = Argo()
    (loop,) = built.root.loop("for-loop-1", 1)
    loop.node["message"] = "failed to resolve {{tasks.x.outputs}}"
    workflow = built.manifest("Error")
    workflow["status"]["nodes"][built.root.node["id"]]["message"] = "child 'x' failed"
    assert innermost_failure(read_workflow(workflow)) == "failed to resolve {{tasks.x.outputs}}"
    assert innermost_failure(read_workflow(Argo("Pending").manifest("Error", message="invalid spec"))) == "invalid spec"


def test_tasks_of_one_name_in_two_graphs_are_two_steps():
    built = Argo()
    built.root.task("distill", "Succeeded")
    built.root.graph("condition-1").task("distill", "Running")
    assert states(built.manifest()) == {"distill": "succeeded", "distill 2": "running"}


def details(built: Argo) -> list[SimpleNamespace]:
    empty = {"create_time": None, "error": None}
    return [SimpleNamespace(**empty, **detail) for detail in v2_details(built.nodes)]


@EVERY
def test_the_v2_apis_details_give_states(defaults):
    built = Argo(defaults=defaults)
    built.root.task("plan", "Succeeded", retries=False)
    built.root.task("teacher", ("Error", "pod deleted"), "Running")
    built.root.task("prepare", driver="Pending")
    for iteration in built.root.loop("for-loop-1", 2):
        iteration.task("cache", "Failed")
    built.root.omit("merge")
    found = {step.label: step.state for step in steps_of_details(details(built), outline())}
    assert found == {
        "plan": "succeeded", "teacher": "running", "prepare": "starting", "cache 1": "failed", "cache 2": "failed",
    }  # fmt: skip


def test_the_v2_apis_details_tell_a_failed_root_driver():
    found = steps_of_details(details(Argo("Failed")), outline())
    assert [(step.label, step.state) for step in found] == [("root-driver", "failed")]


def test_resources_come_from_the_section_of_the_step(tree):
    kubernetes = tree(
        "kubernetes.steps={distill: {cpu: '4', memory: 9Gi}, benchmark_teacher: {}}", "kubernetes.default.memory=3Gi"
    )
    made = Outline(compile_submission("distill", kubernetes, IMAGE, []))
    assert made.resource("distill", "memory") == ("kubernetes.steps.distill.memory", "9Gi")
    assert made.resource("benchmark-teacher", "memory") == ("kubernetes.steps.benchmark_teacher.memory", "")
    assert made.resource("plan", "memory") == ("kubernetes.default.memory", "3Gi")


@pytest.fixture
def tree():
    from cliprd.params import load

    return lambda *changes: load(ROOT / "params.yaml", changes)
