"""A container's CPU limit is obeyed, in both versions of cgroups; objects are frozen for the garbage collector."""

import gc
import os
import subprocess
import sys

import pytest

from cliprd import machine


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_max", ".max").replace("cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu_max": "100000 100000\n"}, 1),
        ({"cpu_max": "50000 100000\n"}, 1),
        ({"cpu_max": "max 100000\n"}, None),
        ({"cpu__cfs_quota_us": "100000\n", "cpu__cfs_period_us": "100000\n"}, 1),
        ({"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}, None),
        ({"cpu_max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_cores_are_no_more_than_the_limit(tmp_path, files, expected):
    allowed = len(os.sched_getaffinity(0))
    assert machine.cores(write(tmp_path, **files)) == (expected or allowed)


def test_libraries_loaded_later_obey_the_limit():
    code = (
        "import os; os.sched_getaffinity = lambda _: {0}; os.cpu_count = lambda: 64\n"
        "from cliprd import machine; machine.limit_threads()\n"
        "import torch; print(torch.get_num_threads())"
    )
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert result.stdout.strip() == "1"


def test_objects_are_frozen_within_the_block_only():
    before = gc.get_freeze_count()
    with machine.gc_frozen():
        assert gc.get_freeze_count() > before + 10_000
    assert gc.get_freeze_count() == 0
    with pytest.raises(KeyError), machine.gc_frozen():
        raise KeyError
    assert gc.get_freeze_count() == 0
