"""The steps of a pipeline: components in an image, with the resources, retries and caching that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from cliprd.errors import ParamsError
from cliprd.params import Kubernetes, Params, validate
from components.benchmark import benchmark, benchmark_teacher
from components.cache import cache
from components.compare import compare, report
from components.distill import distill
from components.prepare import prepare
from components.teacher import teacher

FUNCTIONS = (prepare, teacher, cache, distill, benchmark_teacher, benchmark, compare, report)
LONG = {"teacher", "cache", "distill"}  # worth going on with after a preemption; wrong input fails before them, at once


def defaults(params: Params) -> dict[str, Any]:
    """The sections as defaults of a pipeline's inputs: without nulls, which KFP cannot carry and which are defaults."""
    found = params.model_dump(mode="json", exclude_none=True)
    if validate(found, where="pipeline") != params:
        raise ParamsError("A key is null whose default is not, and KFP carries no null.", "Leave such keys out.")
    return found


class Steps:
    """Makes tasks: `steps.cache(settings=...)` inside a pipeline function.

    Args:
        image: the image every step runs in.
        kubernetes: resources, placement, secrets and retries.
    """

    def __init__(self, image: str, kubernetes: Kubernetes) -> None:
        self._kubernetes = kubernetes
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

    def teacher_side(self, sections: Mapping[str, Any]) -> dict[str, dsl.PipelineTask]:
        """What every pipeline begins with: shards, teacher, its cache and its scores; made once for all students."""
        prepared = self.prepare(data=sections["data"])
        shards = prepared.outputs["shards"]
        model = self.teacher(settings=sections["teacher"], shards=shards)
        cached = self.cache(
            settings=sections["cache"],
            augmentation=sections["augmentation"],
            shards=shards,
            teacher=model.outputs["model"],
        )
        scored = self.benchmark_teacher(settings=sections["benchmark"], model=model.outputs["model"])
        return {"prepare": prepared, "teacher": model, "cache": cached, "benchmark": scored}

    def student_side(
        self, sections: Mapping[str, Any], made: Mapping[str, dsl.PipelineTask], method: Any, seed: Any
    ) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
        """One student and its scores."""
        trained = self.distill(
            settings=sections["distill"],
            student=sections["student"],
            augmentation=sections["augmentation"],
            tracking=sections["tracking"],
            method=method,
            seed=seed,
            shards=made["prepare"].outputs["shards"],
            cache=made["cache"].outputs["embeddings"],
        )
        scored = self.benchmark(
            settings=sections["benchmark"],
            tracking=sections["tracking"],
            model=trained.outputs["model"],
            reference=made["benchmark"].outputs["results"],
        )
        return trained, scored


def _configure(task: dsl.PipelineTask, step: str, kubernetes: Kubernetes) -> None:
    from kfp import kubernetes as k8s

    asked = kubernetes.steps.get(step, kubernetes.default)
    task.set_caching_options(enable_caching=True)
    if kubernetes.retries and step in LONG:
        task.set_retry(
            kubernetes.retries, backoff_duration=kubernetes.backoff, backoff_factor=2.0, backoff_max_duration="3600s"
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
    for label, value in asked.node_selector.items():
        k8s.add_node_selector(task, label_key=label, label_value=value)
    for toleration in asked.tolerations:
        k8s.add_toleration(task, **toleration.model_dump(exclude_none=True))
    if asked.shared_memory:
        k8s.empty_dir_mount(
            task,
            volume_name="shm",
            mount_path="/dev/shm",  # noqa: S108
            medium="Memory",
            size_limit=asked.shared_memory,
        )
    for secret in kubernetes.secrets:
        k8s.use_secret_as_env(task, secret_name=secret.name, secret_key_to_env=dict(secret.keys))
