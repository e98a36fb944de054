"""`compare`: methods × seeds × tasks in one table, one JSON and one page.

Inputs: `benchmarks`, a folder of benchmark folders (`teacher` and `<method>-<seed>`), and `students`, a folder of
distill folders (`<method>-<seed>`). Only the runs of `ablation.methods` × `ablation.seeds` are read; others may lie
beside them.

Output: `comparison.json` (shape: `cliprd.report.comparison`), `comparison.md` (the README's table), `index.html`, and
`metrics/<method>.json`, each a row of `dvc metrics show`. All but the page are the same bytes for the same inputs. The
page also shows what the inputs' `volatile/` folders say of speed, so it is a function of those timings too; their
digest is among this stage's inputs, and new timings make the page anew.

The primary metric of a task is top-1 accuracy, for multilabel tasks mean average precision, for image caption selection
the share of images whose right caption is nearest, for retrieval the mean of R@1 image→text and text→image; the mean
over tasks is unweighted. Tasks that the benchmarks left out are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliprd.artifact.manifest import Manifest
from cliprd.artifact.workspace import Workspace
from cliprd.errors import ParamsError
from cliprd.files import atomic_write, write_json
from cliprd.params import Params, parse_method
from cliprd.report import comparison
from cliprd.report.gather import gather
from cliprd.report.page import render
from cliprd.report.results import TEACHER
from cliprd.report.runs import Grid, check_alike, open_grid, timings
from cliprd.report.table import left_out, markdown_table
from cliprd.storage import Location

METRICS_DIR = "metrics"


def run(params: Params, inputs: Mapping[str, Location], output: Location) -> Manifest:
    """Compare what was benchmarked. See the module.

    Raises:
        InputError: a run of the grid is missing or damaged, was benchmarked on other data or settings than the teacher,
            or its benchmark is of another student than the one in `students`.
        ParamsError: `compare.reference` or `compare.protocol` is not among what was trained and benchmarked.
    """
    reference = reference_method(params)
    grid = open_grid(params.ablation.methods, params.ablation.seeds, inputs["benchmarks"], inputs["students"])
    sections = {"ablation": params.ablation.model_dump(mode="json"), "compare": params.compare.model_dump(mode="json")}
    fingerprints = {f"benchmark/{run.name}": run.manifest.fingerprint for run in grid.runs}
    fingerprints |= {
        f"student/{run.name}": run.student_manifest.fingerprint for run in grid.runs if run.student_manifest
    }
    fingerprints["timings"] = timings(grid)
    with Workspace(output, stage="compare", code="cliprd.stages.compare", params=sections, inputs=fingerprints) as work:
        return work.finished or _write(work, params, grid, reference, sections)


def _write(work: Workspace, params: Params, grid: Grid, reference: str, sections: Mapping[str, Any]) -> Manifest:
    check_alike(grid)
    _check_protocol(grid, params.compare.protocol)
    content = comparison.build(grid, reference=reference, protocol=params.compare.protocol)
    write_json(work.path / "comparison.json", content)
    with atomic_write(work.path / "comparison.md", "w") as file:
        file.write(markdown_table(content))
    with atomic_write(work.path / "index.html", "w") as file:
        shown = {**sections, "compare": {**sections["compare"], "reference": reference}}
        file.write(render(gather(grid, content, shown)))
    block = content["protocols"][params.compare.protocol]
    for name, scores in _metrics(block).items():
        write_json(work.path / METRICS_DIR / f"{name}.json", scores)
    facts: dict[str, Any] = {"protocol": params.compare.protocol, "runs": len(grid.runs)}
    if content["left_out"]:
        facts["left_out"] = left_out(content["left_out"])
    return work.finish(facts={**facts, "verdict": block["headline"]})  # no figure without it


def reference_method(params: Params) -> str:
    """The method to which differences are taken: as written, or the one arm of that name when it carries a suffix.

    Raises:
        ParamsError: `compare.reference` is none of `ablation.methods`, or several.
    """
    wanted, methods = params.compare.reference, params.ablation.methods
    if wanted in methods:
        return wanted
    same = [method for method in methods if parse_method(method)[0] == wanted]
    if len(same) != 1:
        raise ParamsError(
            f"'compare.reference' = '{wanted}' is not one of ablation.methods ({', '.join(methods)}).",
            "Name one of them, for example --set compare.reference=" + methods[0],
        )
    return same[0]


def _check_protocol(grid: Grid, protocol: str) -> None:
    for task, facts in grid.teacher.results["tasks"].items():
        if protocol not in facts["protocols"]:
            raise ParamsError(
                f"'compare.protocol' = '{protocol}' was not benchmarked for {task}.",
                "Add it to benchmark.protocols, or compare by another.",
            )


def _metrics(block: Mapping[str, Any]) -> dict[str, Any]:
    """Scores alone, for `dvc metrics show` and `diff`: {method: {"mean": x, task: x}}."""
    models = {TEACHER: block["teacher"], **block["methods"]}
    return {
        name: {"mean": entry["mean"]["value"], **{task: score["value"] for task, score in entry["tasks"].items()}}
        for name, entry in models.items()
    }
