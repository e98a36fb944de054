"""The student as MLflow serves it: images and class names to probabilities, images or texts to embeddings.

Each row has an `image`, an encoded picture (base64 text, `data:` address, or bytes), or a `text`. Parameters are
`classes`, names to choose from, and `templates`, prompts with {c} for the name, whose embeddings are averaged. The
answer is a matrix with a row for each: probabilities of the classes, without classes L2-normalised embeddings.

Models from code: MLflow keeps this file beside the student's folder and runs it where the model is loaded. It needs
torch, open_clip, Pillow and what MLflow itself needs, and nothing of cliprd.
"""

import base64
import binascii
import io
from typing import Any

import mlflow
import open_clip
import pandas
import torch
from PIL import Image, ImageOps

BATCH = 64
Row = tuple[str, Any]  # `image` or `text`, and its content
TEMPLATES = ["a photo of a {c}."]


class ServedStudent(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow is untyped to mypy
    """A CLIP that open_clip loads from the folder `student`."""

    def load_context(self, context: Any) -> None:
        """Load weights, preprocessing and tokenizer."""
        name = f"local-dir:{context.artifacts['student']}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(name)

    def predict(self, context: Any, model_input: pandas.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """`[rows, classes]` probabilities, or `[rows, dim]` embeddings; see the module."""
        options = params or {}
        classes, templates = list(options.get("classes") or ()), list(options.get("templates") or TEMPLATES)
        rows = [_row(row, number) for number, row in enumerate(model_input.to_dict("records"))]
        if not classes:
            return self._embed(rows).numpy()
        if kinds := [number for number, (kind, _) in enumerate(rows) if kind != "image"]:
            raise mlflow.MlflowException.invalid_parameter_value(f"row {kinds[0]}: only images can be classified")
        if wrong := [template for template in templates if "{c}" not in template]:
            raise mlflow.MlflowException.invalid_parameter_value(f"template {wrong[0]!r} has no {{c}} for the class")
        prompts = [("text", template.replace("{c}", name)) for name in classes for template in templates]
        mean = self._embed(prompts).reshape(len(classes), len(templates), -1).mean(dim=1)
        scores = self._embed(rows) @ torch.nn.functional.normalize(mean, dim=-1).T
        with torch.no_grad():
            logits = self.model.logit_scale.exp() * scores
            if getattr(self.model, "logit_bias", None) is not None:
                logits = logits + self.model.logit_bias
        return logits.softmax(dim=-1).numpy()

    def _embed(self, rows: list[Row]) -> torch.Tensor:
        """Embeddings of `(kind, content)`, in order."""
        embeddings: dict[int, torch.Tensor] = {}
        for kind in ("image", "text"):
            numbers = [number for number, row in enumerate(rows) if row[0] == kind]
            for start in range(0, len(numbers), BATCH):
                block = numbers[start : start + BATCH]
                with torch.no_grad():
                    if kind == "image":
                        images = torch.stack([self.preprocess(_picture(rows[n][1], n)) for n in block])
                        features = self.model.encode_image(images, normalize=True)
                    else:
                        features = self.model.encode_text(self.tokenizer([rows[n][1] for n in block]), normalize=True)
                for number, feature in zip(block, features, strict=True):
                    embeddings[number] = feature
        return torch.stack([embeddings[number] for number in range(len(rows))])


def _row(row: dict[str, Any], number: int) -> Row:
    contents = [(kind, row[kind]) for kind in ("image", "text") if isinstance(row.get(kind), str | bytes | bytearray)]
    if len(contents) != 1:
        raise mlflow.MlflowException.invalid_parameter_value(f"row {number}: give either an image or a text")
    return contents[0]


def _picture(content: str | bytes, number: int) -> Image.Image:
    """Upright, RGB, on white: as the student was trained."""
    try:
        if isinstance(content, str):
            content = base64.b64decode(
                content.split(",", 1)[1] if content.startswith("data:") else content, validate=True
            )
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except (OSError, ValueError, IndexError, binascii.Error, Image.DecompressionBombError) as error:
        raise mlflow.MlflowException.invalid_parameter_value(f"row {number}: not a picture: {error}") from None


mlflow.models.set_model(ServedStudent())
