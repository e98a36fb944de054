"""Draw docs/architecture.svg: the packages of cliprd in their layers, as tests/test_architecture.py holds them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ABOUT = {
    "artifact": "manifest, workspace, identity", "statistics": "outcomes, bootstrap, aggregation",
    "data": "sources, shards, images", "models": "teacher, student, text", "report": "tables, charts, page, card",
    "benchmark": "zero-shot, retrieval, fidelity", "teacher_cache": "format, build, read",
    "demo_teacher": "a plug-in teacher", "distill": "loader, training, checkpoints",
    "lineage": "where a student comes from", "tracking": "MLflow", "promotion": "gate, champion, registry",
    "stages": "prepare … compare: open, call, write", "kubeflow": "steps, client, local runs",
    "retrain": "what changed, what to do", "cli": "commands and their parsers", "plan": "cost before work",
    "doctor": "versions, devices", "export": "formats for use elsewhere", "params": "sections of params.yaml",
    "storage": "local and s3://", "losses": "torch only",
}  # fmt: skip
WIDTH, ROW, GAP = 980, 52, 14
STYLE = (
    ".bg{fill:#ffffff}.box{fill:#eef3f8;stroke:#9fb3c8}.name{fill:#1f4e79;font-weight:600}.note{fill:#52667a;font-size:12px}"
    "@media (prefers-color-scheme: dark){.bg{fill:#0d1117}.box{fill:#1b2733;stroke:#3e5569}.name{fill:#9cc9f5}"
    ".note{fill:#9fb3c8}}"
)


def draw() -> str:
    """The picture, top layer first; a package imports only from the layers below its own."""
    floors = runpy.run_path(str(ROOT / "tests" / "test_architecture.py"))["FLOORS"]
    layers = [sorted(floor - {"__main__"}) for floor in reversed(floors)]
    layers = [layer for layer in layers if layer]
    height = len(layers) * (ROW + GAP) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-size="15" '
        "font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" "
        'aria-label="Packages of cliprd in layers; each imports only from layers below">',
        f'<style>{STYLE}</style><rect class="bg" width="{WIDTH}" height="{height}" rx="10"/>',
        '<text class="note" x="20" y="26">each package imports only from the layers below its own</text>',
    ]
    for level, layer in enumerate(layers):
        y = 40 + level * (ROW + GAP)
        named, plain = [n for n in layer if n in ABOUT], [n for n in layer if n not in ABOUT]
        cells = [(name, ABOUT[name]) for name in named] + ([("modules", ", ".join(plain[:5]) + ", …")] if plain else [])
        wide = 2 if plain else 1
        unit = (WIDTH - 40 - GAP * (len(cells) - 1)) / (len(cells) + wide - 1)
        x = 20.0
        for name, note in cells:
            width = unit * (wide if name == "modules" else 1)
            parts.append(f'<rect class="box" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW}" rx="8"/>')
            middle = x + width / 2
            parts.append(f'<text class="name" x="{middle:.1f}" y="{y + 22}" text-anchor="middle">{name}</text>')
            parts.append(f'<text class="note" x="{middle:.1f}" y="{y + 40}" text-anchor="middle">{note}</text>')
            x += width + GAP
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "architecture.svg").write_text(draw(), encoding="utf-8")
    sys.stdout.write("docs/architecture.svg\n")
