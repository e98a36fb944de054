"""Names of the pipelines that a server's runs and schedules are of."""

from __future__ import annotations

from typing import Any

from cliprd.errors import InputError
from cliprd.kubeflow.client import Api
from cliprd.kubeflow.compile import NAMES
from cliprd.names import shortened, visible


class PipelineNames:
    """The pipelines of a server, by id."""

    def __init__(self, api: Api) -> None:
        self._host = api.host
        listed = list(api.pages(api.client.list_pipelines, "pipelines", namespace=api.namespace))
        self._names = {pipeline.pipeline_id: str(pipeline.display_name) for pipeline in listed}

    def of(self, item: Any) -> str:
        """The pipeline of a run or recurring run: its name; its id where it was removed; `-` where none is known."""
        if reference := item.pipeline_version_reference:
            return self._names.get(reference.pipeline_id, str(reference.pipeline_id))
        document = item.pipeline_spec or {}
        spec = document.get("pipeline_spec", document)
        return str(spec.get("pipelineInfo", {}).get("name", "-"))

    def known(self, name: str) -> str:
        """The name on the server of `distill`, `ablation` or `retrain`, or of any pipeline there.

        Raises:
            InputError: it has no such pipeline.
        """
        full = f"cliprd-{name}" if name in NAMES else name
        if full not in self._names.values():
            others = ", ".join(sorted(map(visible, self._names.values())))
            remedy = f"It has {shortened(others, 300)}." if others else "It has none: submit or schedule one."
            raise InputError(f"{self._host} has no pipeline {shortened(full)}.", remedy)
        return full
