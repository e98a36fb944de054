"""Check that what the documents name is real: paths, `cliprd` and `make` commands, parameter keys, the result table."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

from cliprd import cli, params
from cliprd.errors import ParamsError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import standing  # noqa: E402 — no package

TABLE = ROOT / "docs" / "results" / "comparison.md"
GATE = ROOT / "benchmarks" / "results" / "gate.json"
COSTS = ROOT / "benchmarks" / "results" / "pipeline.json"
COST_MODEL = ROOT / "benchmarks" / "results" / "cost_model.json"


def commands(text: str) -> list[str]:
    """Lines of fenced shell blocks, continuation lines joined; comments, prompts and redirections cut."""
    lines = []
    for block in re.findall(r"```(?:sh|bash|console)?\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            lines.append(line.split("  #")[0].split(" > ")[0].strip())
    return [line for line in lines if line]


def check_cliprd(words: list[str]) -> str | None:
    """Whether the parser and the schema take the command."""
    try:
        options = cli.parser().parse_args(words)
    except SystemExit:
        return "the command line is refused"
    try:
        tree = ROOT / options.params if getattr(options, "params", None) else None
        if tree is not None and tree.is_file():
            params.load(tree, getattr(options, "overrides", []))
    except ParamsError as error:
        return str(error)
    return None


def cost_table() -> str:
    """What `benchmarks/pipeline.py` measured, as Markdown."""
    measured = json.loads(COSTS.read_text(encoding="utf-8"))
    lines = ["| step | seconds | memory, highest seen (MiB) | output (MiB) |", "|---|---:|---:|---:|"]
    lines += [f"| {r['step']} | {r['seconds']} | {r['memory_MiB']} | {r['output_MiB']:g} |" for r in measured["rows"]]
    return "\n".join(lines) + "\n"


def gate_table() -> str:
    """What `benchmarks/gate.py` simulated, as Markdown."""
    measured = json.loads(GATE.read_text(encoding="utf-8"))
    lines = ["| pairs of students | simulated | better (%) | promoted (%) |", "|---|---:|---:|---:|"]
    lines += [
        f"| {row['case']} | {row['pairs']:,} | {100 * row['better']:.1f} | {100 * row['promoted']:.1f} |"
        for row in measured["rows"]
    ]
    return "\n".join(lines) + "\n"


def cost_model_table() -> str:
    """What `benchmarks/cost_model.py` reckons, as Markdown."""
    lines = [
        "| set | views | shards GB | cache GB | hours to cache | an epoch cached | an epoch live "
        "| all epochs cached | live | break-even |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in json.loads(COST_MODEL.read_text(encoding="utf-8"))["rows"]:
        hours = (row["cache_hours"], row["cached_epoch_hours"], row["live_epoch_hours"])
        whole = (row["cached_hours"], row["live_hours"])
        lines.append(
            f"| {row['set']} ({row['pairs'] / 1e6:,.1f} M) | {row['views']} | {row['shards_gb']:,.0f} "
            f"| {row['cache_gb']:,.0f} | {' | '.join(f'{h:,.2f}' for h in hours)} "
            f"| {' | '.join(f'{h:,.1f}' for h in whole)} | epoch {row['break_even_epochs']} |"
        )
    return "\n".join(lines) + "\n"


def check(document: Path, targets: set[str]) -> list[str]:
    """All that is wrong in one document."""
    text = document.read_text(encoding="utf-8")
    wrong = []
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)|src=\"([^\"]+)\"", text):
        target = link[0] or link[1]
        if not re.match(r"[a-z]+:", target) and not (document.parent / target).exists():
            wrong.append(f"link to {target}, which does not exist")
    for line in commands(text):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        while words and "=" in words[0]:
            words = words[1:]
        if words[:1] == ["cliprd"] and (problem := check_cliprd(words[1:])):
            wrong.append(f"`{line}`: {problem}")
        if words[:1] == ["make"]:
            wrong += [f"`{line}`: no such target" for word in words[1:] if "=" not in word and word not in targets]
    for mark, source, table in TABLES:
        found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", text, re.DOTALL)
        if found and found.group(1) != table():
            wrong.append(f"the table '{mark}' is not that of {source.relative_to(ROOT)}; it is:\n{table()}")
    if document.name == "README.md" and document.parent == ROOT:
        table = re.search(r"<!-- results -->\n(.*?)<!-- /results -->", text, re.DOTALL)
        if not table or not TABLE.is_file() or table.group(1).strip() != TABLE.read_text(encoding="utf-8").strip():
            wrong.append(f"the result table is not that of {TABLE.relative_to(ROOT)}")
    return wrong


TABLES = (
    ("costs", COSTS, cost_table),
    ("gate", GATE, gate_table),
    ("cost-model", COST_MODEL, cost_model_table),
    ("standing", standing.RESULTS, standing.table),
)


def main() -> int:
    """Check README.md and docs/*.md."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    wrong = [f"{d.relative_to(ROOT)}: {problem}" for d in documents for problem in check(d, targets)]
    print("\n".join(wrong) or f"{len(documents)} documents: links, commands and figures are real")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
