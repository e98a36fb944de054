"""What the real img2dataset downloads is prepared, count for count; what it writes in other forms is refused by name.

img2dataset has an environment of its own (some 650 MB), as its pins are not ours; its lock lies in `img2dataset/`.
"""

import csv
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cliprd.data.shards import ShardSet
from cliprd.errors import InputError
from cliprd.params import Params
from cliprd.stages import prepare
from tests.data.pictures import encoded, noise

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

LOCK = Path(__file__).parent / "img2dataset" / "requirements.lock"
GOOD, BROKEN, GONE = 21, 3, 4
UNREACHABLE = ("Failed to fetch", "error sending request", "dns error", "Network is unreachable")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """img2dataset in its own environment; skipped only where no package registry can be reached."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert uv, "uv is part of the development environment"
    place = tmp_path_factory.mktemp("img2dataset") / "venv"
    python = place / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, place], check=True)
    install = [uv, "pip", "sync", "-q", "--python", python, "--require-hashes", LOCK]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        if any(sign in done.stderr for sign in UNREACHABLE) and not os.environ.get("CI"):
            pytest.skip(f"img2dataset cannot be installed, no package registry is reached: {done.stderr[-300:]}")
        pytest.fail(done.stderr)
    yield place / "bin" / "img2dataset"
    shutil.rmtree(place)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """A table of addresses on a loopback server: good pictures, broken ones, and some that are not there."""
    root = tmp_path_factory.mktemp("web")
    forms = ("JPEG", "PNG", "WEBP")
    for number in range(GOOD):
        (root / f"{number}.bin").write_bytes(encoded(noise(90, 70, number), forms[number % 3]))
    for number in range(GOOD, GOOD + BROKEN):
        (root / f"{number}.bin").write_bytes(b"<html>not a picture</html>")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    table = tmp_path_factory.mktemp("urls") / "urls.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "caption"])
        for number in range(GOOD + BROKEN + GONE):
            writer.writerow([f"http://127.0.0.1:{server.server_port}/{number}.bin", f'picture "{number}", of noise'])
    yield table
    server.shutdown()
    server.server_close()


def download(program, table, output, form):
    options = {
        "url_list": table,
        "input_format": "csv",
        "url_col": "url",
        "caption_col": "caption",
        "output_folder": output,
        "output_format": form,
        "number_sample_per_shard": 10,
        "processes_count": 1,
        "thread_count": 4,
        "image_size": 64,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
    }
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "PYTHONPATH"):
        environment.pop(name, None)
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="module")
def downloads(program, web, tmp_path_factory):
    """Name → its output folder; img2dataset waits a minute at its end, so all are made at once."""
    root = tmp_path_factory.mktemp("downloads")
    other = root / "other.csv"
    other.write_text(web.read_text().replace("of noise", "of another set"))
    wanted = {
        "cc3m": (web, "webdataset"),
        "cc12m": (other, "webdataset"),
        "files": (web, "files"),
        "parquet": (web, "parquet"),
    }
    with ThreadPoolExecutor() as pool:
        made = {
            name: pool.submit(download, program, table, root / name, form) for name, (table, form) in wanted.items()
        }
        return {name: future.result() for name, future in made.items()}


def run(kind, path, output):
    return prepare.run(Params.model_validate({"data": {"kind": kind, "path": str(path)}}), {}, output)


def successes(folder):
    return sum(json.loads(path.read_text())["successes"] for path in folder.glob("*_stats.json"))


@pytest.mark.parametrize(("name", "kind"), [("cc3m", "webdataset"), ("files", "folder")])
def test_what_it_downloads_is_prepared(downloads, tmp_path, name, kind):
    assert successes(downloads[name]) == GOOD
    made = run(kind, downloads[name], tmp_path / "out")
    assert (made.facts["samples"], made.facts["rejected"]) == (GOOD, 0)
    shards = ShardSet.open(tmp_path / "out")
    captions = {caption for shard in shards.shards for sample in shards.read(shard) for caption in sample.captions}
    assert captions == {f'picture "{number}", of noise' for number in range(GOOD)}


def test_two_downloads_have_the_same_keys_and_both_are_kept(downloads, tmp_path):
    root = downloads["cc3m"].parent
    made = run("webdataset", f"{root}/{{cc3m,cc12m}}/*.tar", tmp_path / "out")
    assert (made.facts["samples"], made.facts["rejected"]) == (2 * GOOD, 0)
    for name in ("one", "again"):
        (tmp_path / name).symlink_to(downloads["cc3m"])
    with pytest.raises(InputError, match=f"{GOOD} duplicate"):
        run("webdataset", f"{tmp_path}/{{one,again}}/*.tar", tmp_path / "twice")


@pytest.mark.parametrize("kind", ["webdataset", "csv", "folder"])
def test_parquet_is_refused_with_the_option_to_use(downloads, tmp_path, kind):
    for place in (downloads["parquet"], downloads["parquet"] / "00000.parquet"):
        with pytest.raises(InputError, match=r"--output_format webdataset"):
            run(kind, place, tmp_path / "out")


@pytest.mark.parametrize("kind", ["webdataset", "csv", "folder"])
def test_tfrecord_is_refused_with_the_option_to_use(tmp_path, kind):
    """TensorFlow writes it, which img2dataset does not bring: the names are what counts."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("00000.tfrecord", "00000.parquet", "00000_stats.json"):
        (raw / name).write_bytes(b"PAR1" if name.endswith("parquet") else b"\x10\0\0\0\0\0\0\0")
    for place in (raw, raw / "00000.tfrecord"):
        with pytest.raises(InputError, match=r"--output_format webdataset"):
            run(kind, place, tmp_path / "out")
