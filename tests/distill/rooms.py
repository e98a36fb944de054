"""Real inputs for the tests of training: shards by `prepare`, a teacher cache by a small open_clip model."""

from pathlib import Path

from PIL import Image, ImageDraw

from cliprd import params as parameters
from cliprd.artifact import manifest
from cliprd.data.shards import ShardSet
from cliprd.models.student import build_student, save_student
from cliprd.params import Params
from cliprd.stages import cache, prepare
from cliprd.teacher_cache import TeacherCache

COLOURS = ("red", "green", "blue", "orange", "purple", "black", "brown", "pink")
SHAPES = ("circle", "square", "triangle", "cross", "line", "ring")
SAMPLES = len(COLOURS) * len(SHAPES)
TEACHER = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 24, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "layers": 1, "width": 16, "heads": 2},
}
STUDENT = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "layers": 1, "width": 8, "heads": 2},
}


def draw(path: Path) -> None:
    """48 pictures of unequal size with one to three captions."""
    path.mkdir()
    for n, (colour, shape) in enumerate((c, s) for c in COLOURS for s in SHAPES):
        image = Image.new("RGB", (36 + n % 5 * 4, 40), "white")
        pen = ImageDraw.Draw(image)
        box = (6, 6, 28, 30)
        match shape:
            case "circle":
                pen.ellipse(box, fill=colour)
            case "square":
                pen.rectangle(box, fill=colour)
            case "triangle":
                pen.polygon([(6, 30), (17, 6), (28, 30)], fill=colour)
            case "cross":
                pen.line((6, 6, 28, 30), fill=colour, width=5)
                pen.line((6, 30, 28, 6), fill=colour, width=5)
            case "line":
                pen.line((6, 18, 28, 18), fill=colour, width=5)
            case "ring":
                pen.ellipse(box, outline=colour, width=4)
        image.save(path / f"{colour}-{shape}.png")
        captions = [f"a {colour} {shape}", f"{shape}", f"a small drawing of a {shape} in {colour} on white paper"]
        (path / f"{colour}-{shape}.txt").write_text("\n".join(captions[: 1 + n % 3]))


def make_params(folder: Path, **distill) -> Params:
    tree = {
        "data": {"kind": "folder", "path": str(folder / "pictures"), "samples_per_shard": 11},
        "augmentation": {"scale": [0.5, 1.0], "seed": 3},
        "cache": {"views": 2, "batch_size": 16},
        "student": {"config": STUDENT},
        "tracking": {"uri": ""},
        "distill": {
            "epochs": 3,
            "batch_size": 10,
            "warmup_steps": 2,
            "checkpoint_every": 5,
            "log_every": 2,
            "device": "cpu",
            **distill,
        },
    }
    return parameters.validate(tree, where="test")


def build(folder: Path) -> None:
    """`folder/shards` and `folder/cache`."""
    draw(folder / "pictures")
    params = make_params(folder)
    prepare.run(params, {}, folder / "shards")
    teacher = Params.model_validate({"student": {"config": TEACHER}}).student
    save_student(build_student(teacher, seed=1), teacher, folder / "teacher")
    manifest.write(folder / "teacher", stage="distill", params={}, inputs={})
    cache.run(params, {"shards": folder / "shards", "teacher": folder / "teacher"}, folder / "cache")


def open_rooms(folder: Path, params: Params) -> tuple[ShardSet, TeacherCache]:
    shards = ShardSet.open(folder / "shards")
    return shards, TeacherCache.open(folder / "cache", shards, params.augmentation)
