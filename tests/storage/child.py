"""Runs stage `distill` with its output in S3 in a process of its own, which SIGKILLs itself when it is told.

Usage: python child.py ROOMS OUTPUT MOMENT: `record` (between two checkpoints, the first of them sent), or `manifest`
(all but the manifest sent).
"""

import os
import signal
import sys
import time
from pathlib import Path

from cliprd import storage
from cliprd.artifact import mirror
from cliprd.stages import distill
from tests.distill.rooms import make_params


def main(rooms: Path, output: str, moment: str) -> None:
    def report(record):
        while moment == "record" and record.step == 8:
            if ".checkpoint/step-00000005.json" in storage.list_folder(output):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)

    send = mirror.upload

    def upload(path, url):
        if moment == "manifest" and path.name == "manifest.json":
            os.kill(os.getpid(), signal.SIGKILL)
        return send(path, url)

    mirror.upload = upload
    distill.run(make_params(rooms), {"shards": rooms / "shards", "cache": rooms / "cache"}, output, report=report)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
