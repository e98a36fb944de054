"""The steps of a pipeline: components in an image, with the resources, retries and caching of section `kubernetes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from cliprd.errors import ParamsError
from cliprd.params import Kubernetes
from components.benchmark import benchmark, benchmark_teacher
from components.cache import cache, merge
from components.compare import compare, report
from components.distill import distill, distill_nodes
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
MOST_BACKOFF = f"{30 * 24 * 3600}s"
UNCACHED = {"plan", "gate", "promote", "refuse", "record"}  # these read the state of the world, or change or report it


class Steps:
    """Makes tasks: `steps.cache(settings=...)` inside a pipeline function.

    Args:
        image: image that every step runs in.
        kubernetes: resources, placement, secrets and retries.

    Raises:
        ParamsError: many nodes, and no store to share.
    """

    def __init__(self, image: str, kubernetes: Kubernetes) -> None:
        self.kubernetes, self._image = kubernetes, image
        if kubernetes.nodes > 1 and not kubernetes.store:
            raise ParamsError(
                f"kubernetes.nodes = {kubernetes.nodes}, and kubernetes.store is empty: many nodes share files in S3.",
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

        def make_task(**arguments: Any) -> dsl.PipelineTask:
            task = component(**arguments)
            _configure(task, name, self.kubernetes)
            return task

        return make_task

    def teacher_side(self, inputs: Mapping[str, Any]) -> dict[str, dsl.PipelineTask]:
        """What every pipeline begins with: shards, teacher, its cache and its scores; made once for all students.

        Args:
            inputs: the pipeline's; all but `publish` are checked by the plan.
        """
        plan = self.plan(**{name: value for name, value in inputs.items() if name != "publish"})
        store = inputs["store"]
        prepared = self.prepare(
            data=inputs["data"], source=plan.outputs["source"], store=store, parts=inputs["cache_parts"]
        )
        shards = prepared.outputs["shards"]
        teacher = self.teacher(settings=inputs["teacher"], weights=plan.outputs["weights"], store=store, shards=shards)
        model = teacher.outputs["model"]
        with dsl.ParallelFor(prepared.outputs["Output"], parallelism=self.kubernetes.parallelism) as part:
            embedded = self.cache(
                settings=inputs["cache"],
                augmentation=inputs["augmentation"],
                store=store,
                part=part,
                shards=shards,
                teacher=model,
            )
        cache = self.merge(store=store, shards=shards, parts=dsl.Collected(embedded.outputs["embeddings"]))
        scored = self.benchmark_teacher(settings=inputs["benchmark"], tasks=plan.outputs["tasks"], model=model)
        return {"plan": plan, "prepare": prepared, "cache": cache, "benchmark": scored}

    def student_side(
        self, inputs: Mapping[str, Any], teacher: Mapping[str, dsl.PipelineTask], *, method: Any, seed: Any
    ) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
        """One student and its scores: the tasks `distill` (or `distill_nodes`) and `benchmark`."""
        training = {
            "settings": inputs["distill"],
            **{name: inputs[name] for name in ("student", "augmentation", "tracking", "store")},
            "method": method,
            "seed": seed,
            "shards": teacher["prepare"].outputs["shards"],
            "cache": teacher["cache"].outputs["embeddings"],
        }
        if self.kubernetes.nodes > 1:
            kubernetes = self.kubernetes.model_dump(mode="json", exclude_none=True)
            trained = self.distill_nodes(**training, kubernetes=kubernetes, image=self._image)
        else:
            trained = self.distill(**training)
        scored = self.benchmark(
            settings=inputs["benchmark"],
            tracking=inputs["tracking"],
            tasks=teacher["plan"].outputs["tasks"],
            model=trained.outputs["model"],
            reference=teacher["benchmark"].outputs["results"],
        )
        return trained, scored


def _configure(task: dsl.PipelineTask, step: str, kubernetes: Kubernetes) -> None:
    from kfp import kubernetes as k8s

    resources = kubernetes.steps.get(step, kubernetes.default)
    task.set_caching_options(enable_caching=step not in UNCACHED)
    # The YAML holds no policy: the cluster's says whether a failed pod is repeated, and then it is after any error. So
    # `plan`, which refuses wrong parameters, has no retries; a later step's non-retryable error is recorded in the
    # store, and its repetition raises it again (`cliprd.kubeflow.step`).
    if kubernetes.retries and step != "plan":
        task.set_retry(
            kubernetes.retries,
            backoff_duration=kubernetes.backoff,
            backoff_factor=2.0,
            backoff_max_duration=MOST_BACKOFF,
        )
    for value, apply in (
        (resources.cpu, (task.set_cpu_request, task.set_cpu_limit)),
        (resources.memory, (task.set_memory_request, task.set_memory_limit)),
        (resources.accelerator, (task.set_accelerator_type,)),
        (resources.accelerators, (task.set_accelerator_limit,)),
    ):
        if value:
            for call in apply:
                call(value)
    for name, value in kubernetes.environment.items():
        task.set_env_variable(name, value)
    for label, value in resources.node_selector.items():
        k8s.add_node_selector(task, label_key=label, label_value=value)
    for affinity in resources.node_affinity:
        requirements = [requirement.model_dump(mode="json") for requirement in affinity.match]
        k8s.add_node_affinity(task, match_expressions=requirements, weight=affinity.weight)
    for label, value in kubernetes.queue_labels.items():
        k8s.add_pod_label(task, label_key=label, label_value=value)
    for toleration in resources.tolerations:
        operator = "Equal" if toleration.value else "Exists"
        k8s.add_toleration(task, operator=operator, **toleration.model_dump(exclude_none=True))
    # Whatever is not an artifact is written to /tmp: the root file system may be read-only.
    k8s.empty_dir_mount(task, volume_name="scratch", mount_path="/tmp", size_limit=resources.scratch)  # noqa: S108
    if resources.shared_memory or resources.accelerators > 1:
        k8s.empty_dir_mount(
            task,
            volume_name="shm",
            mount_path="/dev/shm",  # noqa: S108
            medium="Memory",
            size_limit=resources.shared_memory,
        )
    if resources.timeout:
        k8s.set_timeout(task, resources.timeout)
    for secret in kubernetes.secrets:
        k8s.use_secret_as_env(task, secret_name=secret.name, secret_key_to_env=dict(secret.keys))
    for mounted in kubernetes.volumes:
        k8s.mount_pvc(task, pvc_name=mounted.claim, mount_path=mounted.path)
    if kubernetes.image_pull_secrets:
        k8s.set_image_pull_secrets(task, list(kubernetes.image_pull_secrets))
    k8s.set_security_context(task, run_as_non_root=True)
