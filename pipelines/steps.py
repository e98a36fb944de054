"""The steps of a pipeline: components in an image, with the resources, retries and caching that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from cliprd.errors import ParamsError
from cliprd.params import Kubernetes, Params, validate
from components.benchmark import benchmark, benchmark_teacher
from components.cache import cache, merge
from components.compare import compare, report
from components.distill import distill
from components.distill_nodes import distill_nodes
from components.plan import plan
from components.prepare import prepare
from components.promote import gate, promote, refuse
from components.record import record
from components.teacher import teacher

FUNCTIONS = (
    plan, prepare, teacher, cache, merge, distill, distill_nodes, benchmark_teacher, benchmark, compare, report, gate,
    promote, refuse, record,
)  # fmt: skip
# Argo counts the longest back-off from the first attempt's start: a step that runs for longer is not repeated at all.
LONGEST = f"{30 * 24 * 3600}s"
# These look at what the world is now, change it, or say what came of it.
UNCACHED = {"plan", "gate", "promote", "refuse", "record"}
DESCRIBED = (  # sections that the plan is made of
    "data", "teacher", "augmentation", "cache", "student", "distill", "benchmark", "compare", "tracking",
)  # fmt: skip


def defaults(params: Params) -> dict[str, Any]:
    """The sections as defaults of a pipeline's inputs: without nulls, which KFP cannot carry and which are defaults."""
    params = params.model_copy(update={"tracking": params.tracking.in_pods()})
    found = params.model_dump(mode="json", exclude_none=True)
    if validate(found, where="pipeline") != params:
        raise ParamsError("A key is null whose default is not, and KFP carries no null.", "Leave such keys out.")
    return found


class Steps:
    """Makes tasks: `steps.cache(settings=...)` inside a pipeline function.

    Args:
        image: the image every step runs in.
        kubernetes: resources, placement, secrets and retries.

    Raises:
        ParamsError: many nodes, and no store for them to meet in.
    """

    def __init__(self, image: str, kubernetes: Kubernetes) -> None:
        self._kubernetes, self._image = kubernetes, image
        if kubernetes.nodes > 1 and not kubernetes.store:
            raise ParamsError(
                f"kubernetes.nodes = {kubernetes.nodes}, and kubernetes.store is empty: many nodes meet in S3.",
                "Set kubernetes.store to an s3:// prefix.",
            )
        self._components = {
            function.__name__: dsl.component(function, base_image=image, install_kfp_package=False)
            for function in FUNCTIONS
        }

    def __getattr__(self, name: str) -> Any:
        try:
            component = self._components[name]
        except KeyError:
            raise AttributeError(name) from None

        def task(**arguments: Any) -> dsl.PipelineTask:
            made = component(**arguments)
            _configure(made, name, self._kubernetes)
            return made

        return task

    def teacher_side(
        self, sections: Mapping[str, Any], *, store: Any, cache_parts: Any, **runs: Any
    ) -> dict[str, dsl.PipelineTask]:
        """What every pipeline begins with: shards, teacher, its cache and its scores; made once for all students."""
        planned = self.plan(
            **{name: sections[name] for name in DESCRIBED}, store=store, cache_parts=cache_parts, **runs
        )
        prepared = self.prepare(data=sections["data"], source=planned.outputs["source"], store=store, parts=cache_parts)
        shards = prepared.outputs["shards"]
        model = self.teacher(
            settings=sections["teacher"], weights=planned.outputs["weights"], store=store, shards=shards
        )
        with dsl.ParallelFor(prepared.outputs["Output"], parallelism=self._kubernetes.parallelism) as part:
            embedded = self.cache(
                settings=sections["cache"],
                augmentation=sections["augmentation"],
                store=store,
                part=part,
                shards=shards,
                teacher=model.outputs["model"],
            )
        merged = self.merge(store=store, shards=shards, parts=dsl.Collected(embedded.outputs["embeddings"]))
        scored = self.benchmark_teacher(
            settings=sections["benchmark"], tasks=planned.outputs["tasks"], model=model.outputs["model"]
        )
        return {"plan": planned, "prepare": prepared, "teacher": model, "cache": merged, "benchmark": scored}

    def student_side(
        self, sections: Mapping[str, Any], made: Mapping[str, dsl.PipelineTask], *, store: Any, method: Any, seed: Any
    ) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
        """One student and its scores."""
        on_nodes = {"kubernetes": self._kubernetes.model_dump(mode="json", exclude_none=True), "image": self._image}
        many = self._kubernetes.nodes > 1
        trained = (self.distill_nodes if many else self.distill)(
            **(on_nodes if many else {}),
            settings=sections["distill"],
            student=sections["student"],
            augmentation=sections["augmentation"],
            tracking=sections["tracking"],
            method=method,
            seed=seed,
            store=store,
            shards=made["prepare"].outputs["shards"],
            cache=made["cache"].outputs["embeddings"],
        )
        scored = self.benchmark(
            settings=sections["benchmark"],
            tracking=sections["tracking"],
            tasks=made["plan"].outputs["tasks"],
            model=trained.outputs["model"],
            reference=made["benchmark"].outputs["results"],
        )
        return trained, scored


def _configure(task: dsl.PipelineTask, step: str, kubernetes: Kubernetes) -> None:
    from kfp import kubernetes as k8s

    asked = kubernetes.steps.get(step, kubernetes.default)
    task.set_caching_options(enable_caching=step not in UNCACHED)
    # Kubeflow repeats a step whatever it failed of. `plan`, which refuses wrong parameters, fails at once; what failed
    # later of its input says so again at once, where it could be noted (`cliprd.kubeflow.step`).
    if kubernetes.retries and step != "plan":
        task.set_retry(
            kubernetes.retries, backoff_duration=kubernetes.backoff, backoff_factor=2.0, backoff_max_duration=LONGEST
        )
    for value, apply in (
        (asked.cpu, (task.set_cpu_request, task.set_cpu_limit)),
        (asked.memory, (task.set_memory_request, task.set_memory_limit)),
        (asked.accelerator, (task.set_accelerator_type,)),
        (asked.accelerators, (task.set_accelerator_limit,)),
    ):
        if value:
            for call in apply:
                call(value)
    for name, value in kubernetes.environment.items():
        task.set_env_variable(name, value)
    for label, value in asked.node_selector.items():
        k8s.add_node_selector(task, label_key=label, label_value=value)
    for toleration in asked.tolerations:
        operator = "Equal" if toleration.value else "Exists"
        k8s.add_toleration(task, operator=operator, **toleration.model_dump(exclude_none=True))
    # All that is written outside of artifacts is in /tmp: the root file system may be read-only.
    k8s.empty_dir_mount(task, volume_name="scratch", mount_path="/tmp", size_limit=asked.scratch)  # noqa: S108
    if asked.shared_memory or asked.accelerators > 1:
        k8s.empty_dir_mount(
            task,
            volume_name="shm",
            mount_path="/dev/shm",  # noqa: S108
            medium="Memory",
            size_limit=asked.shared_memory,
        )
    if asked.timeout:
        k8s.set_timeout(task, asked.timeout)
    for secret in kubernetes.secrets:
        k8s.use_secret_as_env(task, secret_name=secret.name, secret_key_to_env=dict(secret.keys))
    for mounted in kubernetes.volumes:
        k8s.mount_pvc(task, pvc_name=mounted.claim, mount_path=mounted.path)
    if kubernetes.image_pull_secrets:
        k8s.set_image_pull_secrets(task, list(kubernetes.image_pull_secrets))
    k8s.set_security_context(task, run_as_non_root=True)
