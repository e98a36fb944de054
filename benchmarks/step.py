"""A training step, ViT-B/16 teacher → ViT-T/16 student: the official CLIP-RD code against cliprd, in turn.

Both sides start from the same random weights and take the same images and captions. The official side does what its
training loop does in a step: student, live teacher under no_grad, loss, backward, its AdamW, texts padded to 77 tokens;
`gather` is the identity and `.cuda()` stays where it is, since its loss runs neither on one process nor on a CPU
otherwise. cliprd's side is its own forward, loss and optimizer from a prepared batch with cached teacher rows; `plain`
is the same with the towers' own forward pass, texts cut to the batch's longest. Precision is the same on all sides:
fp32 on a CPU, bf16 autocast on a GPU. Loading is measured elsewhere; no side has it here.

Captions are as long as CC12M's: log-normal with the mean and deviation that its paper gives in words (20.15 ± 16.30),
taken as tokens, and a start and an end token. Seconds of the processor (`cpu`) stand beside those of the clock: on a
machine that others use they tell more, best with --threads 1.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from _record import save
from _worker import SIDE, Side, serve, without_cuda

CONTEXT, START, END, VOCABULARY = 77, 49406, 49407, 49405
SIDE_PIXELS = 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def batches(o: SimpleNamespace) -> list[tuple[Any, Any]]:
    """(uint8 images `[B, S, S, 3]`, tokens `[B, 77]`) of every batch, the same in every process."""
    import torch

    generator = torch.Generator().manual_seed(0)
    variance = math.log(1 + (o.deviation / o.mean) ** 2)
    made = []
    for _ in range(o.batches):
        images = torch.randint(256, (o.batch_size, SIDE_PIXELS, SIDE_PIXELS, 3), generator=generator, dtype=torch.uint8)
        normal = torch.randn(o.batch_size, generator=generator)
        words = (math.log(o.mean) - variance / 2 + math.sqrt(variance) * normal).exp().round().long()
        tokens = torch.zeros(o.batch_size, CONTEXT, dtype=torch.long)
        for line, count in zip(tokens, words.clamp(1, CONTEXT - 2).tolist(), strict=True):
            line[0], line[count + 1] = START, END
            line[1 : count + 1] = torch.randint(1, VOCABULARY, (count,), generator=generator)
        made.append((images, tokens))
    return made


def run_official(o: SimpleNamespace) -> None:
    """The official models, loss and optimizer, as `main_kd.py` and `train.py` of the checkout use them."""
    import torch

    sys.path.insert(0, str(Path(o.official) / "src"))
    import open_clip
    from training.precision import get_autocast

    if o.device == "cpu":
        without_cuda()
    sys.modules["open_clip.loss"].gather_features = lambda image, text, *_, **__: (image, text)  # type: ignore[attr-defined]
    device = torch.device(o.device)
    precision = "fp32" if o.device == "cpu" else "amp_bf16"
    torch.manual_seed(0)
    model, teacher, *_ = open_clip.create_kd_model_and_transforms(
        "ViT-T-16", "ViT-B-16", precision=precision, device=device
    )
    teacher.eval().requires_grad_(False)
    weights = {"hrd": 1.0, "icl": 1.0, "fd": 2000.0, "VRD": 1.0, "XRD": 1.0}
    args = SimpleNamespace(t_embed_dim=512, s_embed_dim=512, **{f"alpha_{k}_loss": w for k, w in weights.items()})
    loss = open_clip.KDClipLoss(args, cache_labels=True, rank=0, world_size=2).to(device)
    bare = [p for n, p in model.named_parameters() if p.ndim < 2 or any(k in n for k in ("bn", "ln", "bias", "scale"))]
    rest = [p for p in model.parameters() if not any(p is other for other in bare)]
    groups = [{"params": bare, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW([*groups, {"params": list(loss.parameters())}], lr=1e-3, betas=(0.9, 0.98), eps=1e-6)
    autocast = get_autocast(precision)
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    data = [((images.permute(0, 3, 1, 2) / 255 - mean) / std, tokens) for images, tokens in batches(o)]
    model.train()

    def share(folder: str) -> None:
        """The weights and the teacher's rows, for the other side."""
        torch.save(model.state_dict(), Path(folder) / "student.pt")
        with torch.no_grad():
            rows = [teacher(images.to(device), tokens.to(device))[:2] for images, tokens in data]
        torch.save([[t.half().cpu() for t in pair] for pair in rows], Path(folder) / "teacher.pt")

    def step(k: int) -> float:
        images, tokens = (t.to(device, non_blocking=True) for t in data[k % len(data)])
        optimizer.zero_grad()
        with autocast():
            found = model(images, tokens, distill=True)
            with torch.no_grad():
                taught = teacher(images, tokens)
            total = sum(loss(*found, *taught, current_step=k))
        total.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        return total.item()

    serve(share=share, **_measured(step, o.device))


def run_cliprd(o: SimpleNamespace) -> None:
    """cliprd's own parts, put together as its training loop does."""
    import torch

    from cliprd.distill import device as devices
    from cliprd.distill import forward as forwards
    from cliprd.distill.distributed import World
    from cliprd.distill.objective import build_loss
    from cliprd.distill.optimizer import build_optimizer, named_parameters
    from cliprd.distill.rows import Batch
    from cliprd.models import student as students
    from cliprd.params import Distill, Student

    if o.plain:
        forwards.pooled_image_features = students.encode_image_features
        forwards.pooled_text_features = lambda model, tokens, device: students.encode_text_features(
            model, tokens.to(device, non_blocking=True)
        )
    d = Distill(method="clip_rd-raw", device=o.device)
    runtime = devices.resolve(d)
    config = json.loads((Path(o.official) / "src/open_clip/model_configs/ViT-T-16.json").read_text())
    student = Student(config=config, mean=MEAN, std=STD)
    model = students.build_student(student, seed=0)
    model.load_state_dict(torch.load(Path(o.folder) / "student.pt", weights_only=True))
    model.to(runtime.device)
    loss = build_loss(d, 512, 512).to(runtime.device)
    parameters = named_parameters(model, loss)
    optimizer = build_optimizer(parameters.values(), d)
    spec = students.student_spec(model, student)
    forward = forwards.Forward(model, loss, spec, runtime, World(), 1 / 0.07)
    rows = torch.load(Path(o.folder) / "teacher.pt", weights_only=True)
    data = []
    for (images, tokens), (image, text) in zip(batches(o), rows, strict=True):
        longest = int(tokens.argmax(dim=1).max()) + 1
        batch = Batch(images, tokens[:, :longest].contiguous(), image, text)
        data.append(batch.pin() if o.device == "cuda" else batch)

    def step(k: int) -> float:
        total = forwards.objective(forward(data[k % len(data)], o.batch_size))
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        gradients = [p.grad for p in parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if d.clip_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters.values(), d.clip_grad_norm, norm)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        return total.item()

    serve(**_measured(step, o.device))


def _measured(step: Any, device: str) -> dict[str, Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def onednn(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return int(2 * math.prod(x) * weight[0])  # the counter gives shapes

    known = {torch.ops.mkldnn._linear_pointwise: onednn}

    def flops(k: int) -> dict[str, float]:
        """Multiplications and additions of all products of one step, and its loss; takes the step."""
        with FlopCounterMode(display=False, custom_mapping=known) as counter:
            loss = step(k)
        return {"flops": float(counter.get_total_flops()), "loss": loss}

    def timed(k: int) -> dict[str, float]:
        if device == "cuda":
            torch.cuda.synchronize()
        clock, cpu = time.perf_counter(), time.process_time()
        step(k)
        if device == "cuda":
            torch.cuda.synchronize()
        return {"wall": time.perf_counter() - clock, "cpu": time.process_time() - cpu}

    return {"flops": flops, "timed": timed}


def side(name: str, options: dict[str, Any]) -> None:
    """One side of the duel, in a process of its own."""
    import torch

    o = SimpleNamespace(**options)
    if o.threads:
        torch.set_num_threads(o.threads)
    if o.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True  # as the official main; cliprd's products are bf16 there
    (run_official if name == "official" else run_cliprd)(o)


def main() -> None:
    """Alternate the sides, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="a checkout of Rosieyang01/CLIP-RD")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=4, help="distinct batches, taken in turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of each side; 0: torch's choice")
    parser.add_argument("--mean", type=float, default=20.15, help="tokens of a caption, without start and end")
    parser.add_argument("--deviation", type=float, default=16.30)
    parser.add_argument("--name", default="step", help="of the result file")
    options = parser.parse_args()
    lengths = [int(n) + 1 for _, tokens in batches(options) for n in tokens.argmax(dim=1)]
    with tempfile.TemporaryDirectory() as folder:
        given = {**vars(options), "official": str(options.official.resolve()), "folder": folder}
        sides = {"official": Side(__file__, "official", given)}
        sides["official"].ask("share", folder)
        for name in ("plain", "cliprd"):
            sides[name] = Side(__file__, name, {**given, "plain": name == "plain"})
        first = {name: s.ask("flops", 0) for name, s in sides.items()}
        times: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for k in range(1, options.rounds + 1):
            for name, s in sides.items():
                times[name].append(s.ask("timed", k))
        for s in sides.values():
            s.close()
    median = {
        name: {clock: statistics.median(t[clock] for t in found) for clock in ("wall", "cpu")}
        for name, found in times.items()
    }
    rows = []
    for name in sides:
        wall, cpu = median[name]["wall"], median[name]["cpu"]
        rows.append(
            {
                "side": name,
                "step_s": wall,
                "samples_per_s": options.batch_size / wall,
                "cpu_s": cpu,
                "wall_ratio": median["official"]["wall"] / wall,
                "cpu_ratio": median["official"]["cpu"] / cpu,
                "gflop_per_sample": first[name]["flops"] / options.batch_size / 1e9,
                "flop_ratio": first["official"]["flops"] / first[name]["flops"],
                "gflop_per_s": first[name]["flops"] / wall / 1e9,
                "gflop_per_cpu_s": first[name]["flops"] / cpu / 1e9,
                "first_loss": first[name]["loss"],
            }
        )
    save(
        options.name,
        rows,
        batch_size=options.batch_size,
        rounds=options.rounds,
        threads=options.threads or "torch's choice",
        precision="fp32" if options.device == "cpu" else "bf16 autocast",
        captions={
            "distribution": "log-normal in tokens, + start and end, at most 77",
            "mean": options.mean,
            "deviation": options.deviation,
            "drawn_mean": statistics.mean(lengths),
            "drawn_longest": max(lengths),
            "seed": 0,
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] == [SIDE]:
        side(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
