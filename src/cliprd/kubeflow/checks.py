"""The pipeline's first step: parameters, data and the plan are checked before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cliprd import params, storage
from cliprd.artifact import manifest
from cliprd.kubeflow.promotion import noted_by
from cliprd.kubeflow.retry import attempts, reporting
from cliprd.kubeflow.step import tree_of
from cliprd.kubeflow.values import whole_numbers
from cliprd.report import markdown


def plan(
    sections: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], text: str, *, places: Sequence[str] = ()
) -> tuple[str, str, str]:
    """Check everything that can be wrong before any work is done, and write what it will be.

    Args:
        sections: the whole parameter tree, as the pipeline's inputs have it.
        runs: `{"method": ..., "seed": ...}` of each training.
        text: file for the plan, Markdown.
        places: that will be written to, beside the champion's: a wrong bucket or credential is told now.

    Returns:
        Fingerprints of the source data, of the benchmark's tasks and of the teacher's weights. Handed on to the steps
        that read them, they make Kubeflow's cache see what changed behind an unchanged name.
    """
    from cliprd.benchmark import task_set
    from cliprd.data.count import of_source
    from cliprd.lineage import inputs
    from cliprd.plan import plan as describe
    from cliprd.stages.compare import reference_method
    from cliprd.tracking import check

    with reporting():
        methods, seeds = params.check_runs(whole_numbers(list(runs)))
        trees = [
            tree_of({**sections, "distill": {**sections["distill"], "method": method, "seed": seeds[0]}}, where="plan")
            for method in methods
        ]
        grid = {"methods": list(methods), "seeds": list(seeds)}
        reference = sections["compare"]["reference"] if len(methods) > 1 else trees[0].distill.method
        reference_method(
            tree_of(
                {**sections, "ablation": grid, "compare": {**sections["compare"], "reference": reference}}, where="plan"
            )
        )
        found = attempts(lambda: inputs.look(trees[0]))
        pairs = attempts(lambda: of_source(trees[0].data))
        described = {tree.distill.method: attempts(lambda tree=tree: describe(tree, pairs)) for tree in trees}  # type: ignore[misc]
        task_set.check(trees[0].benchmark)
        for place in filter(None, places):
            attempts(lambda place=place: storage.read_bytes(storage.join(place, manifest.NAME)))  # type: ignore[misc]
        tracked = check(trees[0])
        noted_by({name: sections[name] for name in ("promote", "tracking") if name in sections}, "plan")
        written = "".join(
            f"## {method}\n\n{markdown.fence(lines.rstrip(), '')}\n\n" for method, lines in described.items()
        )
        about = f"MLflow: {markdown.text(tracked)}"
        Path(text).write_text(f"# {len(runs)} training(s)\n\n{written}{about}\n", encoding="utf-8")
        source, tested, weights = (hashlib.sha256(inputs.encode(found[part])).hexdigest() for part in inputs.PARTS)
        return source, tested, weights
