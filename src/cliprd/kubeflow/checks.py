"""The pipeline's first step: parameters, data and plan are checked before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliprd import params, storage
from cliprd.artifact import manifest
from cliprd.errors import ParamsError
from cliprd.kubeflow.promotion import noted_by
from cliprd.kubeflow.retry import reporting, with_retries
from cliprd.kubeflow.step import address, tree_of
from cliprd.kubeflow.values import whole_numbers
from cliprd.params import Data
from cliprd.report import markdown

if TYPE_CHECKING:
    from cliprd.data.count import PairCount

ARGUMENT_BYTES = 131_072
ARTIFACT_BYTES = 1_000  # of one in a step's inputs: address, session and metadata, with long names
MOST_ARTIFACT_RUNS = (ARGUMENT_BYTES - 8_000) // (2 * ARTIFACT_BYTES)


def check_count(runs: int, *, store: str, in_store: bool) -> None:
    """Whether the inputs of the comparison of so many trainings fit where Kubeflow passes them.

    Raises:
        ParamsError: they do not, or they are to lie in a store that there is not.
    """
    if in_store and not store:
        raise ParamsError(
            "store is empty, and the pipeline was compiled to compare folders of the store.",
            "Give --input store=s3://…, or compile it without kubernetes.store.",
        )
    if not in_store and runs > MOST_ARTIFACT_RUNS:
        raise ParamsError(
            f"{runs} trainings without kubernetes.store: as artifacts, the comparison's inputs exceed Linux's"
            f" {ARGUMENT_BYTES:,} bytes of one argument from {MOST_ARTIFACT_RUNS + 1} trainings on.",
            "Compile with --set kubernetes.store=s3://…, or train fewer at a time.",
        )


def check_pipeline(
    sections: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    text: str,
    *,
    store: str = "",
    in_store: bool = False,
) -> tuple[str, str, str]:
    """Check everything that can be wrong before any work is done, and write the plan.

    Args:
        sections: the parameter tree, as the pipeline's inputs have it.
        runs: `{"method": ..., "seed": ...}` of each training.
        text: file for the plan, Markdown.
        store: s3:// prefix of the steps' work: a wrong bucket or credential is reported now.
        in_store: the comparison takes the trainings' folders from the store; else as artifacts.

    Returns:
        Fingerprints of the source data, of the benchmark's tasks and of the teacher's weights. As inputs of the steps
        that read those, they make Kubeflow's cache see what changed behind an unchanged name.
    """
    from cliprd.benchmark import task_set
    from cliprd.lineage import inputs
    from cliprd.plan import plan
    from cliprd.stages.compare import reference_method
    from cliprd.tracking import check

    with reporting():
        methods, seeds = params.check_runs(whole_numbers(list(runs)))
        check_count(len(runs), store=store, in_store=in_store)
        trees = [
            tree_of({**sections, "distill": {**sections["distill"], "method": method, "seed": seeds[0]}}, where="plan")
            for method in methods
        ]
        first = trees[0]
        params.check_registered(first, where="plan")
        reference = sections["compare"]["reference"] if len(methods) > 1 else first.distill.method
        grid = {"methods": list(methods), "seeds": list(seeds)}
        compared = {**sections, "ablation": grid, "compare": {**sections["compare"], "reference": reference}}
        reference_method(tree_of(compared, where="plan"))
        fingerprinted = with_retries(inputs.look, first)
        source, tasks, weights = (
            hashlib.sha256(inputs.encode(fingerprinted[part])).hexdigest() for part in inputs.PARTS
        )
        pairs = with_retries(planned_pairs, first.data, sections["data"], source, store)
        plans = {tree.distill.method: with_retries(plan, tree, pairs) for tree in trees}
        task_set.check(first.benchmark)
        if store:
            with_retries(storage.read_bytes, storage.join(store, manifest.NAME))
        server = check(first)
        noted_by({name: sections[name] for name in ("promote", "tracking") if name in sections}, "plan")
        shown = "".join(f"## {method}\n\n{markdown.fence(lines.rstrip(), '')}\n\n" for method, lines in plans.items())
        page = f"# {len(runs)} training(s)\n\n{shown}MLflow: {markdown.text(server)}\n"
        Path(text).write_text(page, encoding="utf-8")
        return source, tasks, weights


def planned_pairs(data: Data, section: Mapping[str, Any], source: str, store: str) -> PairCount:
    """As many as step `prepare` has packed of this source into this store, if it has; else those in the source."""
    from cliprd.data.count import of_shards, of_source

    packed = storage.parse(address(store, "prepare", {"data": section}, {}, content=source)) if store else None
    return (of_shards(packed, data) if packed else None) or of_source(data)
