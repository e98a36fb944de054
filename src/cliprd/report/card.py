"""`MODEL_CARD.md`: a student's description, use, scores, origin and limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2

from cliprd.artifact import manifest
from cliprd.names import visible
from cliprd.report.markdown import literal, text

TEMPLATE = "model_card.md.j2"
UNKNOWN_LICENCE = "Not stated: `promote.licence` in params.yaml is empty. Find out before you distribute this model."
METRICS = {"acc1": "top-1", "mean_per_class_recall": "mean per class", "text_to_image_r1": "text → image R@1"} | {
    "image_to_text_r1": "image → text R@1",
    "mean_average_precision": "mean average precision",
    "text_acc": "right caption nearest",
}


def model_card(
    *,
    title: str,
    trained: Mapping[str, Any],
    results: Mapping[str, Any],
    lineage: Mapping[str, Any] | None,
    decision: str,
    licence: str,
) -> str:
    """The card as Markdown.

    Args:
        title: of the model.
        trained: `{"params", "facts", "inputs", "code"}` of the student's manifest.
        results: content of the benchmark's results.json.
        lineage: content of lineage.json, if there is one.
        decision: of the gate, as Markdown without a heading.
        licence: text on the training data; empty: unknown.
    """
    model, cost = results["model"], results["cost"]
    environment = jinja2.Environment(  # noqa: S701 (Markdown, not HTML)
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), undefined=jinja2.StrictUndefined
    )
    facts = [
        ("parameters", f"{cost['parameters']:,} ({cost['image_parameters']:,} of the image tower)"),
        ("operations", f"{cost['image_macs'] / 1e6:,.1f} million multiply-accumulates an image"),
        ("weights", f"sha256 {literal(model.get('weights_sha256', 'unknown'))}"),
        ("loads with", "open_clip (`local-dir:`), MLflow (`mlflow models serve`), ONNX Runtime"),
    ]
    return environment.get_template(TEMPLATE).render(
        title=text(title),
        teacher=_teacher(results, lineage),
        method=literal(model.get("method") or "unknown"),
        seed=model.get("seed"),
        size=model.get("image", {}).get("size", "?"),
        dim=model["dim"],
        facts=facts,
        scores=_scores(results),
        decision=decision.strip(),
        limits=list(_limits(trained, results)),
        lineage=list(_lineage(trained, lineage)),
        licence="\n".join(map(visible, licence.strip().splitlines())) or UNKNOWN_LICENCE,
    )


def _teacher(results: Mapping[str, Any], lineage: Mapping[str, Any] | None) -> str:
    if reference := results.get("reference"):
        return literal(reference["id"])
    cache = ((lineage or {}).get("inputs") or {}).get("cache") or {}
    params = (((cache.get("inputs") or {}).get("teacher") or {}).get("params") or {}).get("teacher") or {}
    return literal(params["name"]) if "name" in params else "a larger model"


def _scores(results: Mapping[str, Any]) -> str:
    lines = ["| task | examples | protocol | score | % | interval |", "|---|---:|---|---|---:|---|"]
    for task, facts in sorted(results["tasks"].items()):
        for protocol, result in sorted(facts["protocols"].items()):
            for metric, score in sorted(result["scores"].items()):
                if metric in METRICS:
                    low, high = 100 * score["low"], 100 * score["high"]
                    lines.append(
                        f"| {text(task)} | {facts['images']:,} | {text(protocol)} | {METRICS[metric]} "
                        f"| {100 * score['value']:.1f} | {low:.1f} to {high:.1f} |"
                    )
    confidence = 100 * results["bootstrap"]["confidence"]
    return "\n".join([*lines, "", f"Intervals: {confidence:g}%, over the choice of test examples."])


def _limits(trained: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    tasks = {
        name: next(iter(facts["protocols"].values()))["scores"] for name, facts in sorted(results["tasks"].items())
    }
    mains = {
        name: next((scores[m] for m in ("acc1", "image_to_text_r1", "text_acc") if m in scores), None)
        for name, scores in tasks.items()
    }
    known = {name: score["value"] for name, score in mains.items() if score}
    if known:
        worst = min(known, key=lambda name: known[name])
        share = f"{100 * known[worst]:.1f}%"
        yield f"It is often wrong: on {literal(worst)} its first answer is right in {share} of the cases."
    if seen := trained["facts"].get("samples_seen"):
        yield f"It has seen {seen:,} image-text pairs, repetitions included, and knows only what they show."
    if left_out := results.get("left_out"):
        yield f"Tasks that were not scored: {', '.join(map(text, sorted(left_out)))}."
    yield "It was scored on the tasks above only. Other data, prompts or languages may give far lower scores."
    yield "Its biases are those of its teacher and of its training pairs; neither was examined here."
    yield "Not for decisions about people, and not where an unnoticed wrong answer does harm."


def _lineage(trained: Mapping[str, Any], lineage: Mapping[str, Any] | None) -> Iterator[str]:
    inputs = (lineage or {}).get("inputs") or {}
    for name in ("shards", "cache"):
        entry = inputs.get(name) or {}
        if fingerprint := entry.get("fingerprint") or trained["inputs"].get(name):
            facts = ", ".join(
                f"{text(key)} {text(value)}"
                for key, value in sorted((entry.get("facts") or {}).items())
                if isinstance(value, int | float | str) and len(str(value)) < 60
            )
            yield f"{name} {literal(fingerprint)}{f' ({facts})' if facts else ''}"
    sources = (inputs.get("shards") or {}).get("sources") or []
    if sources:
        first, last = (literal(source["name"]) for source in (sources[0], sources[-1]))
        yield f"{len(sources)} source files, {first} to {last}; lineage.json names all"
    teacher = ((inputs.get("cache") or {}).get("inputs") or {}).get("teacher") or {}
    if teacher.get("fingerprint"):
        yield f"teacher {literal(teacher['fingerprint'])}"
    settings = manifest.in_force(trained["params"], trained["facts"]).get("distill", {})
    keys = ("epochs", "batch_size", "lr", "precision", "scale_mode")
    if settings_shown := ", ".join(f"{key} {text(settings[key])}" for key in keys if key in settings):
        yield f"trained with {settings_shown}"
    yield f"code {text(trained['code'])}"
