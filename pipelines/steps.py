"""The steps of a pipeline: components in an image, with the resources, retries and caching of section `kubernetes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kfp import dsl

from cliprd.errors import ParamsError
from cliprd.kubeflow.image import image_of
from cliprd.params import Kubernetes
from components.benchmark import benchmark, benchmark_teacher
from components.cache import cache, merge
from components.compare import compare, compare_stored, report
from components.distill import distill, distill_nodes
from components.fused import benchmark_report, distill_benchmark, prepare_teacher
from components.plan import plan
from components.prepare import prepare
from components.promote import gate, promote, refuse
from components.record import record
from components.teacher import teacher

FUNCTIONS = (
    plan, prepare, teacher, cache, merge, distill, distill_nodes, benchmark_teacher, benchmark, compare, compare_stored,
    report, gate, promote, refuse, record, prepare_teacher, distill_benchmark, benchmark_report,
)  # fmt: skip
# Argo counts the longest back-off from the first attempt's start: a step that runs for longer is not repeated at all.
MOST_BACKOFF = f"{30 * 24 * 3600}s"
UNCACHED = {"plan", "gate", "promote", "refuse", "record"}  # these read the state of the world, or change or report it


Inputs = Mapping[str, Any]
"""Input's name → KFP's channel."""


class TeacherSide(NamedTuple):
    """Channels that every student needs."""

    shards: Any
    cache: Any
    scores: Any
    tasks: Any


class StudentSide(NamedTuple):
    """Channels of one student: its artifacts, and their folders in the store."""

    model: Any
    results: Any
    student: Any
    benchmark: Any


class Steps:
    """Makes tasks: `steps.cache(settings=...)` inside a pipeline function.

    Args:
        image: image of the steps; `kubernetes.slim_image` is that of those without torch.
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
            name: dsl.component(function, base_image=image_of(name, image, kubernetes), install_kfp_package=False)
            for name, function in ((function.__name__, function) for function in FUNCTIONS)
        }

    @property
    def stored(self) -> bool:
        """Whether the trainings of an ablation are compared by their folders in the store."""
        return bool(self.kubernetes.store)

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

    def teacher_side(self, inputs: Inputs, *, many: bool = False) -> TeacherSide:
        """What every pipeline begins with: shards, teacher, its cache and its scores; made once for all students.

        Args:
            inputs: the pipeline's; all but `publish` are checked by the plan.
            many: the pipeline compares any number of trainings.
        """
        checked = {name: value for name, value in inputs.items() if name != "publish"}
        plan = self.plan(**{"cache_parts": 1, **checked}, in_store=many and self.stored)
        store, fused = inputs["store"], self.kubernetes.fuse
        sources = {"data": inputs["data"], "source": plan.outputs["source"]}
        teacher = {"settings": inputs["teacher"], "weights": plan.outputs["weights"]}
        if fused:
            prepared = made = self.prepare_teacher(**sources, **teacher, store=store)
        else:
            prepared = self.prepare(**sources, store=store, parts=inputs["cache_parts"])
            made = self.teacher(**teacher, store=store, shards=prepared.outputs["shards"])
        shards, model = prepared.outputs["shards"], made.outputs["model"]
        embedding = {
            "settings": inputs["cache"], "augmentation": inputs["augmentation"], "store": store, "shards": shards,
            "teacher": model,
        }  # fmt: skip
        if fused:
            cache = self.cache(**embedding, part="")
        else:
            with dsl.ParallelFor(prepared.outputs["Output"], parallelism=self.kubernetes.parallelism) as part:
                embedded = self.cache(**embedding, part=part)
            cache = self.merge(store=store, shards=shards, parts=dsl.Collected(embedded.outputs["embeddings"]))
        tasks = plan.outputs["tasks"]
        scored = self.benchmark_teacher(settings=inputs["benchmark"], tasks=tasks, store=store, model=model)
        return TeacherSide(shards, cache.outputs["embeddings"], scored.outputs["results"], tasks)

    def distilled(self, inputs: Inputs, teacher: TeacherSide, *, method: Any, seed: Any) -> dsl.PipelineTask:
        """One student: the task `distill`, or `distill_nodes`."""
        training = self._training(inputs, teacher, method, seed)
        if self.kubernetes.nodes == 1:
            return self.distill(**training)
        kubernetes = self.kubernetes.model_dump(mode="json", exclude_none=True)
        return self.distill_nodes(**training, kubernetes=kubernetes, image=self._image)

    def evaluation(self, inputs: Inputs, teacher: TeacherSide, model: Any) -> dict[str, Any]:
        """Arguments of the benchmark of a student."""
        return {
            "settings": inputs["benchmark"], "tracking": inputs["tracking"], "store": inputs["store"],
            "tasks": teacher.tasks, "model": model, "reference": teacher.scores,
        }  # fmt: skip

    def student_side(self, inputs: Inputs, teacher: TeacherSide, *, method: Any, seed: Any) -> StudentSide:
        """One student and its scores, in one pod where pods are joined and one node trains."""
        if self.kubernetes.fuse and self.kubernetes.nodes == 1:
            both = self.distill_benchmark(
                **self._training(inputs, teacher, method, seed),
                evaluation=inputs["benchmark"],
                tasks=teacher.tasks,
                reference=teacher.scores,
            ).outputs
            return StudentSide(both["model"], both["results"], both["student"], both["benchmark"])
        trained = self.distilled(inputs, teacher, method=method, seed=seed).outputs
        scored = self.benchmark(**self.evaluation(inputs, teacher, trained["model"])).outputs
        return StudentSide(trained["model"], scored["results"], trained["Output"], scored["Output"])

    def _training(self, inputs: Inputs, teacher: TeacherSide, method: Any, seed: Any) -> dict[str, Any]:
        return {
            "settings": inputs["distill"],
            **{name: inputs[name] for name in ("student", "augmentation", "tracking", "store")},
            "method": method,
            "seed": seed,
            "shards": teacher.shards,
            "cache": teacher.cache,
        }


def _configure(task: dsl.PipelineTask, step: str, kubernetes: Kubernetes) -> None:
    from kfp import kubernetes as k8s

    resources = kubernetes.resources(step)
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
