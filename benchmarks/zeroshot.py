"""Zero-shot evaluation, task folder to scores: cliprd's benchmark against CLIP_benchmark, with equal scores.

    python benchmarks/zeroshot.py [--tasks NAME …] [--rounds N] [--batch-size N] [--arch NAME]
                                  [--threads N] [--device cuda]

Both evaluate one open_clip folder (the demo's student, or `--arch`, with random weights) on the demo's task folders, by
turns in one process, in float32, at the same batch size, the model loaded beforehand. CLIP_benchmark's side is what its
`eval` does with a local WebDataset: `build_dataset`, the loader and `evaluate` of the task's kind, without worker
processes. Ours loads the task, embeds it under the same (`standard`) protocol and scores it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from _record import save
from clip_benchmark.datasets.builder import build_dataset
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

from cliprd import params as parameters
from cliprd.benchmark.embed import embed
from cliprd.benchmark.retrieval import AT, retrieve
from cliprd.benchmark.tasks import load_task
from cliprd.benchmark.towers import Towers
from cliprd.benchmark.zeroshot import classify
from cliprd.models.encoder import resolve_device
from cliprd.models.student import build_student, load_student, save_student
from cliprd.params import Params

REPOSITORY = Path(__file__).parents[1]
TASKS = REPOSITORY / "data/demo/benchmark"
TOLERANCE = 2e-3  # of a score: an example or two whose nearest are equal but for rounding

Scores = dict[str, float]


def main() -> None:
    """Measure, compare the scores, and save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tasks", nargs="+", default=sorted(path.name for path in TASKS.iterdir()))
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--batch-size", type=int, default=128)
    arguments.add_argument("--arch", help="an open_clip architecture instead of the demo's student")
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--name", default="zeroshot", help="of the result file")
    arguments.add_argument("--threads", type=int, help="of torch: 1 where others use the machine, as theirs spin then")
    options = arguments.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    # Its `accuracy` calls float() on arrays of one element, which numpy has come to refuse.
    zeroshot_classification.float = lambda x: float(np.asarray(x, dtype=float).item())
    student = parameters.load(REPOSITORY / "params.yaml").student
    if options.arch:
        student = Params.model_validate({"student": {"arch": options.arch}}).student
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        save_student(build_student(student, seed=0), student, Path(folder))
        towers = Towers(load_student(Path(folder), device=device))
        theirs = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=device)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        theirs[0].eval()
        sides = {
            "clip_benchmark": lambda task: clip_benchmark(task, theirs[0], theirs[2], tokenizer, options, device),
            "cliprd": lambda task: cliprd(task, towers, options.batch_size),
        }
        for name in options.tasks:
            seconds: dict[str, list[float]] = {side: [] for side in sides}
            cpu: dict[str, list[float]] = {side: [] for side in sides}
            scores: dict[str, Scores] = {}
            for number in range(options.rounds + 1):
                for side in sorted(sides, reverse=bool(number % 2)):  # neither is always the first
                    begun, used = time.perf_counter(), time.process_time()
                    scores[side] = sides[side](TASKS / name)
                    if number:  # the first round warms up
                        seconds[side].append(time.perf_counter() - begun)
                        cpu[side].append(time.process_time() - used)
            apart = max(abs(scores["cliprd"][metric] - value) for metric, value in scores["clip_benchmark"].items())
            if not apart <= TOLERANCE:
                raise SystemExit(f"{name}: the scores differ: {scores}")
            medians = {side: statistics.median(taken) for side, taken in seconds.items()}
            processor = {side: statistics.median(taken) for side, taken in cpu.items()}
            rows.append(
                {
                    "task": name,
                    **{f"{side}_s": taken for side, taken in medians.items()},
                    "speedup_ratio": medians["clip_benchmark"] / medians["cliprd"],
                    **{f"{side}_cpu_s": taken for side, taken in processor.items()},
                    "cpu_speedup_ratio": processor["clip_benchmark"] / processor["cliprd"],
                    "scores_apart": apart,
                }
            )
    columns = [name for name in rows[0] if name.endswith("_s")]
    whole: dict[str, Any] = {"task": "all", **{name: sum(row[name] for row in rows) for name in columns}}
    whole["speedup_ratio"] = whole["clip_benchmark_s"] / whole["cliprd_s"]
    whole["cpu_speedup_ratio"] = whole["clip_benchmark_cpu_s"] / whole["cliprd_cpu_s"]
    whole["scores_apart"] = max(row["scores_apart"] for row in rows)
    save(
        options.name,
        [*rows, whole],
        student=options.arch or "the demo's",
        image_size=towers.spec.size,
        batch_size=options.batch_size,
        rounds=options.rounds,
        torch_threads=torch.get_num_threads(),
    )


def cliprd(folder: Path, towers: Towers, batch_size: int) -> Scores:
    """What stage `benchmark` makes of a task, without intervals and examples."""
    task = load_task(folder)
    rows = embed(towers, task, ["standard"], batch_size=batch_size)
    if task.kind == "retrieval":
        found = retrieve(rows["image"], rows["text"], np.repeat(np.arange(len(task)), [*map(len, task.captions)]))
    else:
        found = classify(rows["image"], rows["class.standard"], task.labels)
    return {m: float(np.average(v, weights=found.weights.get(m))) for m, v in found.values.items()}


def clip_benchmark(
    folder: Path, model: Any, transform: Any, tokenizer: Any, options: argparse.Namespace, device: torch.device
) -> Scores:
    """What `clip_benchmark eval --no_amp` does once the model is loaded, its scores under our names."""
    place = device.type  # as a string, as its autocast wants it
    kind = folder / "dataset_type.txt"
    retrieval = kind.exists() and kind.read_text().strip() == "retrieval"
    task = "zeroshot_retrieval" if retrieval else "zeroshot_classification"
    dataset = build_dataset(f"wds/{folder.name}", root=str(folder), transform=transform, split="test", task=task)
    loader = torch.utils.data.DataLoader(dataset.batched(options.batch_size), batch_size=None, num_workers=0)
    if retrieval:
        found = zeroshot_retrieval.evaluate(model, loader, tokenizer, place, amp=False, recall_k_list=AT)
        names = {"image_retrieval_recall@": "text_to_image_r", "text_retrieval_recall@": "image_to_text_r"}
        return {new + key.removeprefix(old): v for old, new in names.items() for key, v in found.items() if old in key}
    found = zeroshot_classification.evaluate(
        model, loader, tokenizer, dataset.classes, dataset.templates, place, amp=False
    )
    return {metric: float(value) for metric, value in found.items() if value == value}


if __name__ == "__main__":
    main()
