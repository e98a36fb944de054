"""The parameter tree: what is accepted, and how each wrong thing is told."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from cliprd import params
from cliprd.errors import ParamsError

ROOT = Path(__file__).parents[2]


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        params.load(file, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("file", ["params.yaml", "configs/paper.yaml"])
def test_shipped_files_load_and_round_trip(file, tmp_path):
    tree = params.load(ROOT / file)
    (tmp_path / "again.yaml").write_text(params.dump(tree), encoding="utf-8")
    assert params.load(tmp_path / "again.yaml") == tree


def test_the_paper_file_has_the_papers_setting():
    paper = params.load(ROOT / "configs/paper.yaml")
    assert paper.teacher.name == "open_clip:ViT-B-16:laion400m_e32"
    assert paper.student.arch == "ViT-T-16"
    assert (paper.distill.epochs, paper.distill.batch_size, paper.distill.lr) == (32, 1024, 1e-3)
    assert (paper.distill.warmup_steps, paper.distill.weight_decay) == (10_000, 0.1)
    assert paper.distill.weights.model_dump() == {
        **dict.fromkeys(("task", "hrd", "icl", "vrd", "vrd_ce", "xrd"), 1),
        "fd": 2000,
        "extra": {},
    }
    assert paper.augmentation.scale == (0.9, 1.0)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("distill: {epoch: 3}", ["distill.epoch", "did you mean 'distill.epochs'", "warmup_steps"]),
        ("distil: {}", ["unknown key 'distil'", "did you mean 'distill'"]),
        ("teacher: {aligned: {dims: 3}}", ["teacher.aligned.dims", "did you mean 'teacher.aligned.dim'"]),
        ("distill: {lr: -1}", ["'distill.lr' = -1", "greater than 0"]),
        ("distill: {lr: .nan}", ["distill.lr"]),
        ("distill: {epochs: 3.5}", ["distill.epochs", "integer"]),
        ("distill: {epochs: '3'}", ["distill.epochs", "integer"]),
        ("distill: {epochs: true}", ["distill.epochs", "integer"]),
        ("distill: {method: clp_kd}", ["distill.method", "clip_kd", "-exp"]),
        ("distill: {method: clip_rd-log}", ["distill.method", "-raw or -exp"]),
        ("distill: {batch_size: 1}", ["distill.batch_size", "greater than or equal to 2"]),
        ("distill: {processes: 0}", ["'distill.processes' = 0: ", "greater than 0", "'auto'"]),
        ("ablation: {methods: []}", ["ablation.methods", "at least 1"]),
        ("ablation: {methods: [foo]}", ["ablation.methods", "foo"]),
        ("teacher: {name: clip}", ["teacher.name", "open_clip:<architecture>"]),
        ("augmentation: {scale: [0.9, 0.5]}", ["augmentation", "lowest <= highest"]),
        ("distill: 3", ["'distill' = 3"]),
        ("- a", ["not a tree"]),
        ("a: [", ["not valid YAML"]),
        ("distill: {weights: {fd: .inf}}", ["distill.weights.fd"]),
    ],
)
def test_wrong_trees_are_reported_with_key_and_hint(text, parts, tmp_path):
    message = refused(tmp_path, text)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("override", ["distill", "=3", "distill..lr=3", "distill.lr=[", "distill.lrr=1"])
def test_wrong_overrides_are_reported(override, tmp_path):
    assert override.split("=")[0] in refused(tmp_path, "{}", override)


def test_a_missing_file_and_a_directory_are_reported(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ParamsError, match="cannot be read"):
            params.load(path)


def test_overrides_are_yaml_and_reach_any_depth(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("{}", encoding="utf-8")
    tree = params.load(file, ["distill.lr=1e-4", "ablation.seeds=[1, 2]", "distill.weights.fd=null", "data.path=x"])
    assert tree.distill.lr == 1e-4
    assert tree.ablation.seeds == (1, 2)
    assert tree.distill.weights.fd is None
    assert tree.data.path == "x"


@example({"function-": None})
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.dictionaries(st.text(), c)))
def test_any_tree_is_valid_or_a_params_error(tree):
    try:
        params.validate({"distill": tree} if not isinstance(tree, dict) else tree, where="test")
    except ParamsError as error:
        assert str(error).startswith("test: ")


def test_every_key_has_a_default_so_that_the_empty_file_is_valid(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("", encoding="utf-8")
    assert params.load(file) == params.Params()


def test_parse_method_splits_name_and_scale_mode():
    assert params.parse_method("clip_kd") == ("clip_kd", None)
    assert params.parse_method("clip_rd-exp") == ("clip_rd", "exp")
    for wrong in ("clip_rd-", "", "clip_rd-raw-exp", "CLIP_RD"):
        with pytest.raises(ValueError, match="is no method"):
            params.parse_method(wrong)


def test_committed_schema_is_fresh():
    committed = (ROOT / "docs/params.schema.json").read_text(encoding="utf-8")
    assert committed == params.schema(), "run: make schema"


def test_the_schema_has_the_keys_of_the_shipped_file():
    schema = json.loads(params.schema())
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert set(shipped) <= set(schema["properties"])
    assert schema["additionalProperties"] is False


HOSTILE = [
    "1e999", ".nan", "-.inf", "[.nan]", "[[1, .inf]]", "{a: {b: .inf}}", "9" * 5000, "-" + "9" * 5000, "99999999999",
    "9223372036854775808", "9223372036854775807", "1e308", "1e-06", "-1", "0", "012", "''", "", "null", "~", "[]", "{}",
    "true", "yes", "2024-01-01", "1:30", "1_000", "!!binary aGk=", "!!python/object/apply:os.system [id]", "&a [*a]",
    "[" * 100, "{a: " * 100, "{1: 2}", "{2024-01-01: 1}", "{~: 1}", "{!!binary aGk=: 1}", "{a: 1, a: 2}", '"\\0"',
    '"\\ud800"', "'x\u202ey'", "*none", "a: b: c", "x" * 5000, "\udcff", ",", "\\t", "-", "[", "{<<: [1]}", "? [a]",
    "%x", "@x", "`x`", "|", ">", "# x", "!x", "a #b",
]  # fmt: skip


def leaves(section: type[params.Section], path: tuple[str, ...] = ()):
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, params.Section):
            yield from leaves(field.annotation, (*path, name))
        else:
            yield (*path, name)


FREE = [("student", "config", "embed_dim"), ("kubernetes", "environment", "A"), ("kubernetes", "steps", "plan", "cpu")]
KEYS = [*leaves(params.Params), *FREE]


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_no_value_of_any_key_crashes(key, tmp_path):
    """Accepted and finite, or one line that names the key (of a file that is no YAML: its line)."""
    plain, file = tmp_path / "plain.yaml", tmp_path / "params.yaml"
    plain.write_text("{}", encoding="utf-8")
    dotted = ".".join(key)
    for value in HOSTILE:
        above = "".join(f"{'  ' * depth}{part}:\n" for depth, part in enumerate(key[:-1]))
        text = f"{above}{'  ' * (len(key) - 1)}{key[-1]}: {value}\n"
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        for arguments, where in (((file,), str(file)), ((plain, [f"{dotted}={value}"]), f"--set {dotted}=")):
            try:
                tree = params.load(*arguments)
            except ParamsError as error:
                message = str(error)
                assert message.isprintable()
                assert len(message) < 1500
                assert where in message
                if where.startswith("--set"):
                    assert str(plain) not in message
                else:
                    assert dotted in message or f"'{'.'.join(key[:-1])}'" in message or "line" in message
            else:
                json.dumps(tree.model_dump(mode="json"), allow_nan=False).encode()
                assert params.validate(tree.model_dump(mode="json"), where="again") == tree
                plain2 = tmp_path / "again.yaml"
                plain2.write_text(params.dump(tree), encoding="utf-8")
                assert params.load(plain2) == tree


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("tracking.uri=", ""),
        ("promote.champion=", ""),
        ("kubernetes.store=", ""),
        ("student.config=", None),
        ("distill.weights.fd=", None),
        ("kubernetes.default.cpu=", None),  # its pattern takes no empty text
        ("kubernetes.default.cpu=4", "4"),
        ("kubernetes.environment.OMP_NUM_THREADS=4", "4"),
        ("tracking.experiment=2024", "2024"),
        ("data.path=true", "true"),
        ("data.path=a/{00000..00004}.tar", "a/{00000..00004}.tar"),
        ("data.path={a,b}.tar", "{a,b}.tar"),
        ("data.path='5'", "5"),
        ("data.csv_separator=\\t", "\t"),
        ("data.csv_separator=\t", "\t"),
        ("data.csv_separator='\\t'", "\t"),
        ('data.csv_separator="\\t"', "\t"),
        ("data.csv_separator=,", ","),
        ("data.csv_separator=;", ";"),
        ("data.csv_separator=|", "|"),
        ("data.csv_separator=:", ":"),
        ("data.csv_separator= ", " "),
        ("distill.chunk_size=  ", None),
        ("distill.lr=1e-06", 1e-6),
        ("distill.lr=.5e-3", 5e-4),
        ("distill.max_scale=+1e2", 100.0),
        ("distill.chunk_size=null", None),
        ("distill.chunk_size=~", None),
        ("benchmark.names=null", None),
        ("promote.margins.tasks=none", "none"),
        ("distill={lr: 1e-06}", 1e-6),
        ('distill={"lr": 1e-06}', 1e-6),
    ],
)  # fmt: skip
def test_values_on_the_command_line_are_typed_by_their_key(override, value, tmp_path, capsys):
    file = tmp_path / "p.yaml"
    file.write_text("", encoding="utf-8")
    found = params.load(file, [override])
    for part in ["distill", "lr"] if override.startswith("distill={") else override.partition("=")[0].split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_a_key_that_takes_text_or_a_mapping_takes_a_mapping_from_the_command_line(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("teacher: {name: 'open_clip:RN50:x.pt'}", encoding="utf-8")
    value = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    found = params.load(file, [f"teacher.preprocess={json.dumps(value)}"]).teacher
    assert found.model_dump(mode="json")["preprocess"] == value
    assert params.load(file, ["teacher.preprocess=openai"]).teacher.preprocess == "openai"
    with pytest.raises(ParamsError, match="resize_mode"):
        params.load(file, ["teacher.preprocess={mean: [0.5, 0.5, 0.5]}"])


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("tracking.uri=null", ["'tracking.uri' = None", "string"]),
        ("distill.epochs=", ["'distill.epochs' = ''", "integer"]),
        ("data.csv_separator=ab", ["one character"]),
        ("data.csv_separator=", ["one character"]),
        ('data.csv_separator="\\n"', ["one character"]),
        ("distill.seed=9223372036854775808", ["distill.seed", "64 bits"]),
        ("distill.seed=-1", ["distill.seed"]),
        ("ablation.seeds=[0, 9223372036854775808]", ["ablation.seeds", "64 bits"]),
        ("distill.epochs=1000001", ["distill.epochs", "1000000"]),
        ("distill.batch_size=2000000", ["distill.batch_size", "1048576"]),
        ("distill.workers=100000", ["distill.workers", "1024"]),
        ("student.mean=[.nan, 0, 0]", ["student.mean", "finite"]),
        ("student.config={a: [1, [.inf]]}", ["student.config", "a.1.0", "finite"]),
        ("distill={lr: 1, lr: 2}", ["'lr' is given twice"]),
        ("ablation.seeds=[0, 1, 0]", ["ablation.seeds", "0 is listed twice"]),
        ("ablation.methods=[vrd, vrd]", ["ablation.methods", "'vrd' is listed twice"]),
        ("benchmark.protocols=[paper, paper]", ["benchmark.protocols", "'paper' is listed twice"]),
        ("benchmark.names=[a, b, a]", ["benchmark.names", "'a' is listed twice"]),
        ("retrain.seeds=[1, 1]", ["retrain.seeds", "1 is listed twice"]),
        ("distill.epoch=3", ["did you mean 'distill.epochs'"]),
        (".".join("a" * 200) + "=1", ["64 levels"]),
    ],
)
def test_a_wrong_override_is_named_in_the_error(override, parts, tmp_path):
    message = refused(tmp_path, "distill: {epochs: 2}", override)
    assert message.startswith("--set ")
    assert "params.yaml" not in message
    for part in parts:
        assert part in message


def test_errors_name_file_or_override_if_both_are_wrong(tmp_path):
    message = refused(tmp_path, "distill: {epochs: 0}", "distill.lr=-1")
    assert re.search(r"params.yaml: 'distill.epochs' = 0: [^;]*; --set distill.lr=-1: 'distill.lr' = -1", message)
    file = tmp_path / "params.yaml"
    assert params.load(file, ["distill.epochs=3"]).distill.epochs == 3  # an override mends the file
    with pytest.raises(ParamsError, match=r"^--method x: "):
        params.load(file, ["distill.epochs=3", "distill.method=x"], written={"distill.method=x": "--method x"})


def test_a_foreign_file_gives_a_short_error(tmp_path):
    message = refused(tmp_path, "\n".join(f"k{i}: 1" for i in range(1000)))
    assert "and 995 more" in message
    assert len(message) < 3000


@pytest.mark.parametrize("arch", ["ViT-T-16", "ViT-B-32", "none"])
def test_student_takes_arch_or_config(tmp_path, arch):
    message = refused(tmp_path, f"student: {{arch: {arch}, config: {{embed_dim: 4}}}}")
    assert "student.arch" in message
    assert "student.config" in message
    message = refused(tmp_path, "student: {config: {embed_dim: 4}}", f"student.arch={arch}")
    assert message.startswith("--set student.arch")
    file = tmp_path / "params.yaml"
    assert params.load(file).student.arch is None  # what does not count is not shown
    other = params.load(file, [f"student.arch={arch}", "student.config=null"]).student
    assert (other.arch, other.config) == (arch, None)
    assert params.Params().student.arch == "ViT-T-16"
    assert params.load(file, ["student.config=null", "student.arch=null"]).student.arch == "ViT-T-16"


@pytest.mark.parametrize("method", [m + s for m in params.METHODS for s in ("", "-raw", "-exp")])
@pytest.mark.parametrize("mode", ["raw", "exp", None])
def test_the_resolved_tree_names_the_scale_mode_in_force(method, mode, tmp_path, capsys):
    file = tmp_path / "p.yaml"
    file.write_text(f"distill: {{method: {method}{f', scale_mode: {mode}' if mode else ''}}}", encoding="utf-8")
    tree = params.load(file)
    suffix = method.partition("-")[2]
    assert tree.distill.scale_mode == (suffix or mode or "raw")
    said = "distill.scale_mode" in capsys.readouterr().err
    assert said == bool(suffix and mode and mode != suffix)
    file.write_text(params.dump(tree), encoding="utf-8")
    assert params.load(file) == tree
    assert "scale_mode" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("data: {kind: folder, csv_image_key: x}", "data.csv_image_key"),
        ("data: {csv_separator: ','}", "data.csv_separator"),
        ("teacher: {name: 'open_clip:RN50:openai', aligned: {epochs: 3}}", "teacher.aligned"),
        ("distill: {method: vrd-exp, max_scale: 50}", "distill.max_scale"),
        ("kubernetes: {engine: pytorchjob}", "kubernetes.engine"),
        ("data: {kind: csv, csv_separator: ','}", None),
        ("teacher: {aligned: {epochs: 3}}", None),
        ("data: {csv_image_key: filepath}", None),  # the default: as `cliprd params` writes it
    ],
)
def test_a_parameter_without_effect_prints_a_line(text, key, tmp_path, capsys):
    file = tmp_path / "p.yaml"
    file.write_text(text, encoding="utf-8")
    params.load(file)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (key is not None)
    assert key is None or lines[0].startswith(f"cliprd: {key}")
