"""Collects the page's data from the runs' folders: curves, confusion, geometry, examples, costs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cliprd import document, files
from cliprd.artifact import manifest
from cliprd.errors import InputError
from cliprd.report import confusion, geometry
from cliprd.report.costs import device, gather_costs
from cliprd.report.results import (
    TEACHER,
    Answer,
    Confusion,
    Geometry,
    Layout,
    Page,
    Picture,
    Query,
    Ranking,
    Sighting,
    TrainingCurves,
    shown_classnames,
)
from cliprd.report.runs import Grid, Run
from cliprd.report.thumbnails import data_uri

DRAWN_CLASSES = 40  # a larger heat map is not readable
GEOMETRY_ROWS = 250  # per task and tower: 31,000 pairs
QUERIES_A_KIND = 4
SIGHTINGS_A_TASK = 8
COMMANDS = (
    "dvc repro",
    "cliprd compare --benchmarks work/benchmark --students work/students --output reports",
)


def gather(grid: Grid, content: Mapping[str, Any], sections: Mapping[str, Any]) -> Page:
    """The page's data. Pictures, confusion and geometry are of the first seed.

    Args:
        grid: the runs.
        content: of comparison.json.
        sections: parameters to show.
    """
    best = content["protocols"][content["protocol"]]["best"]
    params: dict[str, Any] = dict(sections)
    params["benchmark"] = dict(grid.teacher.manifest.params)
    params["students"] = {
        run.name: manifest.in_force(run.student_manifest.params, run.student_manifest.facts)
        for run in grid.runs
        if run.student_manifest
    }
    return Page(
        comparison=content,
        histories=[
            _history(method, run) for method, runs in grid.methods.items() for run in zip(grid.seeds, runs, strict=True)
        ],
        queries=_queries(grid, content["protocol"], best),
        sightings=_sightings(grid, content["protocol"], best),
        confusions=_confusions(grid, list(content["protocols"])),
        geometry=_geometry(grid, content),
        layouts=_layouts(grid),
        costs=gather_costs(grid),
        device=device(grid),
        params=document.dump(params, sort_keys=False),
        commands=COMMANDS,
    )


def _history(method: str, seeded: tuple[int, Run]) -> TrainingCurves:
    seed, run = seeded
    assert run.student is not None
    rows = list(csv.DictReader(io.StringIO((run.student / "history.csv").read_text(encoding="utf-8"))))
    if not rows:
        raise InputError(f"{run.student / 'history.csv'} has no row.", "Lower distill.log_every, then run `dvc repro`.")
    names = [name for name in rows[0] if name]
    columns = {name: [_float(row[name]) for row in rows] for name in names}
    between = names[names.index("loss") + 1 : names.index("grad_norm")]
    scales = tuple(name for name in between if name.endswith("scale"))
    terms = tuple(name for name in between if name not in scales)
    return TrainingCurves(method=method, seed=seed, columns=columns, terms=terms, scales=scales)


def _float(text: str | None) -> float:
    return float(text) if text else math.nan


def _confusions(grid: Grid, protocols: Sequence[str]) -> list[Confusion]:
    confusions = []
    models = (TEACHER, *grid.methods)
    for task, facts in grid.teacher.results["tasks"].items():
        if facts["kind"] != "classification":
            continue
        classes = shown_classnames(facts["classnames"])
        outcomes = {model: grid.first(model).tensors("outcomes", task) for model in models}
        for protocol in protocols:
            matrices = {
                model: confusion.counts(these["labels"], these[f"{protocol}.predicted"][:, 0], len(classes))
                for model, these in outcomes.items()
            }
            counts = matrices if len(classes) <= DRAWN_CLASSES else {}
            pairs = {model: confusion.most_confused(matrix, classes) for model, matrix in matrices.items()}
            confusions.append(Confusion(task=task, protocol=protocol, classes=classes, counts=counts, pairs=pairs))
    return confusions


def _geometry(grid: Grid, content: Mapping[str, Any]) -> list[Geometry]:
    """Similarities of evenly spaced images and texts of every task, pooled; pairs never cross tasks."""
    kinds = {
        "Image–image": ("image_rank", "image_cka_debiased"),
        "Text–text": ("text_rank", "text_cka_debiased"),
        "Image–text": ("cross_rank", None),
    }
    tasks = list(grid.teacher.results["tasks"])
    teacher = _similarities(grid.teacher, tasks, content["protocol"])
    comparisons = []
    for method in grid.methods:
        student = _similarities(grid.first(method), tasks, content["protocol"])
        scores = content["fidelity"][method]["mean"]
        for kind, (rank, cka) in kinds.items():
            comparisons.append(
                Geometry(
                    method=method,
                    towers=kind,
                    teacher=teacher[kind],
                    student=student[kind],
                    spearman=scores.get(rank),
                    cka=scores.get(cka) if cka else None,
                )
            )
    return comparisons


def _similarities(run: Run, tasks: Sequence[str], protocol: str) -> dict[str, Any]:
    parts: dict[str, list[Any]] = {"Image–image": [], "Text–text": [], "Image–text": []}
    for task in tasks:
        tensors = run.tensors("embeddings", task)
        image = _spaced(tensors["image"])
        text = _spaced(tensors["text"] if "text" in tensors else tensors[f"class.{protocol}"])
        parts["Image–image"].append(geometry.pair_similarities(image))
        parts["Text–text"].append(geometry.pair_similarities(text))
        parts["Image–text"].append(geometry.pair_similarities(image, text))
    return {kind: np.concatenate(arrays) for kind, arrays in parts.items()}


def _spaced(rows: Any) -> Any:
    return rows[np.linspace(0, len(rows) - 1, min(GEOMETRY_ROWS, len(rows))).astype(int)]


def _layouts(grid: Grid) -> list[Layout]:
    layouts = []
    for task, facts in grid.teacher.results["tasks"].items():
        if facts["kind"] != "classification" or not 3 <= len(facts["classnames"]) <= DRAWN_CLASSES:
            continue
        classes = shown_classnames(facts["classnames"])
        labels = grid.teacher.tensors("outcomes", task)["labels"]
        means = {
            model: geometry.class_means(grid.first(model).tensors("embeddings", task)["image"], labels, len(classes))
            for model in (TEACHER, *grid.methods)
        }
        coordinates, directions = geometry.plane(means[TEACHER])
        rotated = {method: geometry.onto(means[TEACHER], means[method]) for method in grid.methods}
        layouts.append(
            Layout(
                task=task,
                classes=classes,
                teacher=coordinates,
                students={method: where @ directions.T for method, (where, _) in rotated.items()},
                kept={method: kept for method, (_, kept) in rotated.items()},
            )
        )
    return layouts


def _sightings(grid: Grid, protocol: str, best: str) -> list[Sighting]:
    """A few of the benchmark's examples of every classification task, with the models' answers."""
    runs = (grid.teacher, grid.first(best))
    sightings = []
    for task, facts in grid.teacher.results["tasks"].items():
        if facts["kind"] == "retrieval":
            continue
        examples = [run.examples(task) for run in runs]
        pairs = list(zip(*(these["protocols"][protocol]["images"] for these in examples), strict=True))
        pairs.sort(key=lambda pair: files.digest([task, pair[0]["key"]]))
        for pair in pairs[:SIGHTINGS_A_TASK]:
            answers = tuple(
                Answer(model=model, said=entry["predicted"][0]["label"], right=entry["correct"])
                for model, entry in zip((TEACHER, best), pair, strict=True)
            )
            label, image = pair[0]["label"], pair[0]["image"]
            picture = _picture(runs[0], examples[0], image, {image: label})
            sightings.append(Sighting(task=task, label=label, picture=picture, answers=answers))
    return sightings


def _queries(grid: Grid, protocol: str, best: str) -> list[Query]:
    """A few of the benchmark's retrieval examples, which are the same for every model, for each kind of outcome."""
    kinds = {
        (True, True): "Both right",
        (False, True): f"Only {best} right",
        (True, False): "Only the teacher right",
        (False, False): "Both wrong",
    }
    queries = [
        query
        for task, facts in grid.teacher.results["tasks"].items()
        if facts["kind"] == "retrieval"
        for query in _task_queries(grid, task, facts["images"], protocol, best, kinds)
    ]
    queries.sort(key=lambda query: files.digest([query.task, query.caption]))
    return [query for kind in kinds.values() for query in [q for q in queries if q.kind == kind][:QUERIES_A_KIND]]


def _task_queries(
    grid: Grid, task: str, gallery: int, protocol: str, best: str, kinds: Mapping[tuple[bool, bool], str]
) -> list[Query]:
    runs = (grid.teacher, grid.first(best))
    examples = [run.examples(task) for run in runs]
    captions = _captions(examples[0]["protocols"][protocol])
    queries = []
    for entries in zip(*(these["protocols"][protocol]["text_to_image"] for these in examples), strict=True):
        if len({(entry["caption"], entry["image"]) for entry in entries}) != 1:
            raise InputError(
                f"The examples of {task} differ between {runs[0].folder} and {runs[1].folder}.", "Run `dvc repro`."
            )
        rankings = []
        for model, run, these, entry in zip((TEACHER, best), runs, examples, entries, strict=True):
            pictures = [
                _picture(run, these, hit["image"], captions, right=hit["correct"]) for hit in entry["retrieved"]
            ]
            rankings.append(Ranking(model=model, pictures=tuple(pictures), rank=entry["rank"] + 1))
        queries.append(
            Query(
                task=task,
                kind=kinds[rankings[0].rank == 1, rankings[1].rank == 1],
                caption=entries[0]["caption"],
                target=_picture(runs[0], examples[0], entries[0]["image"], captions),
                gallery=gallery,
                rankings=tuple(rankings),
            )
        )
    return queries


def _captions(examples: Mapping[str, Any]) -> dict[int, str]:
    """Image → its captions, for alternative text."""
    captions = {entry["image"]: "; ".join(entry["captions"]) for entry in examples.get("image_to_text", ())}
    return captions | {entry["image"]: entry["caption"] for entry in examples["text_to_image"]}


def _picture(
    run: Run, examples: Mapping[str, Any], image: int, captions: Mapping[int, str], *, right: bool = True
) -> Picture:
    with run.picture(examples, image) as file:
        return Picture(uri=data_uri(file), caption=captions.get(image, f"picture {image}"), right=right)
