"""Runs one stage in a process that imports nothing else of cliprd, and prints which of its modules are loaded then.

Usage: python loaded.py STAGE PARAMS.json INPUTS.json OUTPUT
"""

import importlib
import json
import sys
from pathlib import Path

from cliprd import params

stage, tree, inputs, output = sys.argv[1:]
importlib.import_module(f"cliprd.stages.{stage}").run(
    params.validate(json.loads(Path(tree).read_text()), where="test"),
    {name: Path(path) for name, path in json.loads(Path(inputs).read_text()).items()},
    Path(output),
)
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "cliprd")))
