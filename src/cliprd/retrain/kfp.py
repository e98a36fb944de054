"""`cliprd retrain --runner kfp`: the pipeline `retrain` trains, gates and promotes, on a cluster or on this machine.

The result is read from the notes that its gate and promotion leave beside the champion: that is the same on a cluster,
where this process sees none of the steps' folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliprd.artifact import manifest
from cliprd.errors import InputError, ParamsError
from cliprd.kubeflow.client import Api
from cliprd.params import Params
from cliprd.promotion import champion
from cliprd.retrain.proposal import Plan, note
from cliprd.retrain.run import Judged

STEPS = [
    "plan",
    "prepare",
    "teacher",
    "cache",
    "benchmark-teacher",
    "distill",
    "benchmark",
    "gate",
    "promote or refuse",
    "record",
]
ROOT = Path("work/pipeline")


class Pipeline:
    """A `cliprd.retrain.run.Runner`.

    Args:
        params: the tree.
        image: of the steps.
        api: of the cluster; None: this machine.
        local: on this machine: `docker` or `process`.

    Raises:
        ParamsError: several seeds; the pipeline trains one.
    """

    name = "kfp"

    def __init__(self, params: Params, image: str, *, api: Api | None = None, local: str | None = None) -> None:
        if len(params.retrain.seeds) > 1:
            raise ParamsError(
                f"retrain.seeds = {list(params.retrain.seeds)}: the pipeline trains one seed.",
                "Give one, or use --runner dvc.",
            )
        self._params, self._image, self._api, self._local = params, image, api, local

    def would_run(self, planned: Plan) -> list[str]:
        """Every step; those whose work is in Kubeflow's cache or the store take a moment."""
        return STEPS

    def retrain(self, planned: Plan, *, promote: bool, output: Path, asked_by: Mapping[str, str]) -> Judged:
        """See `Runner.retrain`; `asked_by` is the pipeline's run, as it promotes."""
        from cliprd.kubeflow.submit import compile_submission

        settings = self._params.retrain
        inputs = [f"method={settings.method}", f"seed={settings.seeds[0]}", f"publish={str(promote).lower()}"]
        submission = compile_submission("retrain", self._params, self._image, inputs)
        if self._local:
            decision, benchmarks = self._run_locally(submission.arguments)
        else:
            decision, benchmarks = self._run_on_cluster(submission), []
        url, version = self._params.promote.champion, None
        if promote and decision["passed"]:
            current = champion.current(url, self._params)
            if current is None or current.version == decision["champion"]:
                raise InputError(
                    "The gate let the student pass, but the champion is unchanged.",
                    "Look at the run's step `promote`.",
                )
            version, benchmarks = current.version, list(current.benchmarks)
        elif promote and decision["verdict"] != "champion":
            refused = {"champion": decision["champion"], "reason": decision["reason"], "version": None}
            champion.note(url, self._params, note(planned.judged_as), refused)
        return Judged(decision, benchmarks, version)

    def _run_on_cluster(self, submission: Any) -> dict[str, Any]:
        from cliprd.kubeflow.follow import follow
        from cliprd.kubeflow.submit import submit

        assert self._api is not None
        experiment = self._params.tracking.experiment
        run = submit(self._api, submission, experiment=experiment, run_name=None, cache=True)
        follow(self._api, run, submission, timeout=None)
        decision = champion.noted(self._params.promote.champion, self._params, f"{run.run_id}/gate")
        if decision is None:
            raise InputError(
                f"run {run.display_name} left no decision of its gate beside the champion.", "Look at its steps."
            )
        return decision

    def _run_locally(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[Path]]:
        from cliprd.kubeflow.local import run_locally

        assert self._local is not None
        run = run_locally("retrain", self._params, self._image, runner=self._local, root=ROOT, arguments=arguments)
        folders = [path.parent for path in run.folder.rglob(manifest.NAME)]
        stages = {folder: manifest.read(folder).stage for folder in folders}
        (gated,) = (folder for folder, stage in stages.items() if stage == "gate")
        decision = json.loads((gated / "decision.json").read_text(encoding="utf-8"))
        scored = [folder for folder, stage in stages.items() if stage == "benchmark" and _of_student(folder)]
        return decision, scored  # none where the step was reused: its folder is another run's


def _of_student(folder: Path) -> bool:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return bool(results["model"]["stage"] == "distill")
