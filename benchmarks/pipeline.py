"""What each step of a pipeline costs: seconds, memory and output of the demo's pipeline, in containers on this machine.

python benchmarks/pipeline.py [distill|ablation|retrain] [cliprd's options, as --set distill.epochs=1]
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from _record import save

import docker
from cliprd import params

STEP = re.compile(r"--function_to_execute (\S+)")
DONE = re.compile(r"^\S+ (?P<name>\S+).* done in (?P<seconds>\d+) s$")


def watch(image: str, ended: threading.Event, peaks: Counter[str]) -> None:
    """Keep the highest memory of every step's containers, in bytes; the page cache is not counted."""
    client = docker.from_env()
    while not ended.wait(0.2):
        for container in client.containers.list(filters={"ancestor": image}):
            with contextlib.suppress(docker.errors.APIError, KeyError, ValueError):  # it ended meanwhile
                found = STEP.search(" ".join(container.attrs["Config"]["Cmd"]))
                memory = container.stats(stream=False, one_shot=True)["memory_stats"]
                cached = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
                if found:
                    peaks[found[1]] = max(peaks[found[1]], memory["usage"] - cached)


def main() -> None:
    """Run the pipeline once, with nothing done before, and save."""
    name = sys.argv[1] if sys.argv[1:2] and not sys.argv[1].startswith("-") else "distill"
    options = sys.argv[2:] if sys.argv[1:2] == [name] else sys.argv[1:]
    image = subprocess.run(["cliprd", "pipeline", "image", "cpu"], capture_output=True, text=True, check=True).stdout
    image, peaks, ended = image.strip(), Counter[str](), threading.Event()
    try:
        docker.from_env().images.get(image)
    except docker.errors.DockerException as error:
        print(f"not measured: {error}; make images")
        return
    with tempfile.TemporaryDirectory() as place:
        watcher = threading.Thread(target=watch, args=(image, ended, peaks), daemon=True)
        watcher.start()
        command = ["cliprd", "pipeline", "run", name, "--local", "docker", "--root", place, *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = []
            for line in process.stdout or ():
                print(line, end="", flush=True)
                lines.append(line.rstrip())
        ended.set()
        watcher.join()
        if process.returncode:
            sys.exit(process.returncode)
        sizes: Counter[str] = Counter()
        for record in Path(place).rglob("executor_output.json"):
            outputs = json.loads(record.read_text()).get("artifacts", {})
            files = [p for output in outputs for p in (record.parent / output).rglob("*") if p.is_file()]
            sizes[record.parent.name] += sum(path.stat().st_size for path in files)
    seconds: Counter[str] = Counter()
    for found in filter(None, map(DONE.match, lines)):
        seconds[found["name"]] += int(found["seconds"])
    save(
        "pipeline",
        [
            {
                "step": step,
                "seconds": spent,
                "memory_MiB": round(peaks[step.replace("-", "_")] / 2**20),
                "output_MiB": round(sizes[step] / 2**20, 1),
            }
            for step, spent in seconds.items()
        ],
        pipeline=name,
        epochs=params.load(Path("params.yaml")).distill.epochs,
    )


if __name__ == "__main__":
    main()
