"""`mlflow models serve` answers from the registry's champion what open_clip answers from the student's folder."""

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from cliprd.promotion import champion
from tests.mlflow_server import mlflow_server  # noqa: F401 (a fixture)
from tests.ports import free_port
from tests.promotion import candidates
from tests.promotion.candidates import ASKED

pytestmark = pytest.mark.integration
LIMIT = 180.0
CLASSES, TEMPLATES = ["a bird", "a bus", "a flower"], ["a photo of {c}.", "a drawing of {c}."]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return candidates.write(tmp_path_factory.mktemp("served"), "clip_kd", 0)


@pytest.fixture(scope="module")
def served(student, mlflow_server, tmp_path_factory):  # noqa: F811
    """The server's address."""
    place, port = "models:/served", free_port()
    tree = candidates.params(place, mlflow_server.uri, licence="Pictures: CC0.")
    decision = {"passed": True, "champion": None, "reason": "there is no champion yet"}
    champion.publish(place, tree, student[0], [student[1]], decision, ASKED)
    folder = tmp_path_factory.mktemp("serving")  # nothing of the repository is in reach
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"{place}@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow_server.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it starts uvicorn
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + LIMIT
        while True:
            assert process.poll() is None, (folder / "log").read_text()[-4000:]
            assert time.monotonic() < end, (folder / "log").read_text()[-4000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LIMIT)


def ask(served, rows, **parameters):
    body = json.dumps({"dataframe_records": rows, "params": parameters}).encode()
    request = urllib.request.Request(served, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LIMIT) as reply:
        return np.array(json.load(reply)["predictions"])


def pictures():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 30 + 20 * i, 3), dtype=np.uint8)) for i in range(3)]


def encoded(image, kind="PNG"):
    data = io.BytesIO()
    image.save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


@pytest.fixture(scope="module")
def own(student):
    """open_clip's own model, preprocessing and tokenizer of the student's folder."""
    place = f"local-dir:{student[0]}"
    model, _, preprocess = open_clip.create_model_and_transforms(place)
    return model.eval(), preprocess, open_clip.get_tokenizer(place)


def test_images_and_texts_become_embeddings(served, own):
    model, preprocess, tokenizer = own
    texts = ["a bird on a branch", "two buses"]
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(image) for image in pictures()]), normalize=True)
        words = model.encode_text(tokenizer(texts), normalize=True)
    rows = [{"image": encoded(image)} for image in pictures()] + [{"text": text} for text in texts]
    answer = ask(served, rows)
    np.testing.assert_allclose(answer, torch.cat([images, words]).numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-5)
    address = "data:image/png;base64," + encoded(pictures()[0])
    np.testing.assert_allclose(ask(served, [{"image": address}]), answer[:1], atol=1e-5)


def test_images_and_class_names_become_probabilities(served, own):
    model, preprocess, tokenizer = own
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(image) for image in pictures()]), normalize=True)
        classes = [
            model.encode_text(tokenizer([t.replace("{c}", name) for t in TEMPLATES]), normalize=True).mean(dim=0)
            for name in CLASSES
        ]
        weights = torch.nn.functional.normalize(torch.stack(classes), dim=-1)
        expected = (model.logit_scale.exp() * images @ weights.T).softmax(dim=-1).numpy()
    rows = [{"image": encoded(image)} for image in pictures()]
    answer = ask(served, rows, classes=CLASSES, templates=TEMPLATES)
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert np.abs(answer - ask(served, rows, classes=CLASSES)).max() > 1e-6  # the default is another template


def test_wrong_input_is_told(served):
    for rows, parameters, why in (
        ([{"image": "!!"}], {}, "row 0: not a picture"),
        ([{"text": "a"}], {"classes": ["a"]}, "row 0: only images can be classified"),
        ([{"image": encoded(pictures()[0])}], {"classes": ["a"], "templates": ["x"]}, "has no {c}"),
        ([{"image": "x", "text": "y"}], {}, "row 0: give either"),
    ):
        with pytest.raises(urllib.error.HTTPError) as failure:
            ask(served, rows, **parameters)
        assert failure.value.code == 400
        assert why in json.loads(failure.value.read())["message"]


def test_transparent_pictures_are_on_white(served):
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    rows = [{"image": encoded(clear)}, {"image": encoded(Image.new("RGB", (32, 32), "white"))}]
    clear, white = ask(served, rows)
    np.testing.assert_allclose(clear, white, atol=1e-6)


def test_the_package_is_whole_and_names_no_place_of_this_machine(served, student, mlflow_server, tmp_path):  # noqa: F811
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    uri = MlflowClient(mlflow_server.uri).get_model_version_download_uri("served", "1")
    folder = Path(download_artifacts(uri, dst_path=str(tmp_path), tracking_uri=mlflow_server.uri))
    card = (folder / "MODEL_CARD.md").read_text()
    assert "## Intended use" in card
    assert card.endswith("## Licences of the training data\n\nPictures: CC0.")
    pins = (folder / "requirements.txt").read_text().split()
    assert f"torch=={torch.__version__.partition('+')[0]}" in pins
    assert all("==" in pin and "/" not in pin and "+" not in pin for pin in pins)
    assert not list(folder.rglob("*.pkl"))
    for path in folder.rglob("*"):
        if path.suffix in {"", ".py", ".yaml", ".txt", ".json", ".md"} and path.is_file():
            assert str(student[0].parents[1]) not in path.read_text(), path
            assert "/src/cliprd" not in path.read_text(), path
    assert "import cliprd" not in (folder / "served_model.py").read_text()
