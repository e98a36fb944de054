"""Every package that cliprd imports is declared, by the core or by the extra that its error names."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from cliprd import extras
from cliprd.errors import MachineError

ROOT = Path(__file__).parents[1]
CORE = {
    "torch", "torchvision", "open_clip", "timm", "huggingface_hub", "numpy", "scipy", "PIL", "pydantic", "yaml",
    "safetensors", "boto3", "botocore", "tqdm",
}  # fmt: skip
OURS = {"cliprd", "components", "pipelines"}


def test_every_import_is_of_the_core_or_of_an_extra():
    optional = {module for modules in extras.MODULES.values() for module in modules}
    for folder in (ROOT / "src", ROOT / "components", ROOT / "pipelines"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                    names = [node.module]
                tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OURS
                assert tops <= CORE | optional, path


def test_every_extra_that_an_error_names_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.MODULES) <= set(project["optional-dependencies"])


def test_a_missing_module_of_an_extra_is_one_line_and_any_other_is_a_defect():
    line = r"'kfp' is not installed.*pip install 'cliprd\[kubeflow\]'"
    with pytest.raises(MachineError, match=line), extras.optional():
        raise ModuleNotFoundError("No module named 'kfp.dsl'", name="kfp.dsl")
    with pytest.raises(ModuleNotFoundError), extras.optional():
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")
