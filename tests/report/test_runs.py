"""What the page reads of a benchmark's folder."""

import base64
import io

from PIL import Image

from cliprd.artifact import manifest
from cliprd.report.runs import Run


def test_pictures_are_read_from_the_examples_and_from_folders_of_before(tmp_path):
    (tmp_path / "examples" / "photos").mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3), "red").save(buffer, "WEBP", lossless=True)
    (tmp_path / "examples" / "photos" / "7.webp").write_bytes(buffer.getvalue())
    sealed = manifest.write(tmp_path, stage="benchmark", params={}, inputs={})
    run = Run("clip_kd-0", tmp_path, sealed)
    for stored in (base64.b64encode(buffer.getvalue()).decode(), "examples/photos/7.webp"):
        with run.picture({"pictures": {"7": stored}}, 7) as image:
            assert (image.size, image.convert("RGB").getpixel((0, 0))) == ((5, 3), (255, 0, 0))
