"""Tasks, classes and captions with hostile names, through `compare` and `retrain` to every face of a report."""

import re

import pytest

from cliprd import cli
from cliprd.names import visible
from cliprd.params import validate
from cliprd.report.card import model_card
from cliprd.report.table import RATES
from cliprd.retrain.report import render
from cliprd.stages.compare import run
from tests.hostile import FORBIDDEN, NAMES, check_dead
from tests.report import folders
from tests.report.browser import Browser
from tests.retrain.test_report import interval, report

pytestmark = pytest.mark.integration
METHODS = ["clip_kd", "clip_rd-exp"]
FOLDERS = [name for kind, name in NAMES.items() if kind != "not text"]  # which `benchmark` refuses
CLASSES = [*FOLDERS, "</title></text></svg><script>document.title='owned'</script>", "]]></style>"]


def hostile_tasks():
    """Every name is a task's, and all are classes' and captions' of one task each."""
    names = [*FOLDERS, "Alike twin", "alike twin", "alike  twin"]
    tasks = [folders.Task(name, "classification", ["a", "b", "c"], 30, 0.5) for name in names]
    captions = [(text, image) for image, text in enumerate(CLASSES)]
    return [
        *tasks,
        folders.Task("classes", "classification", CLASSES, 120, 0.9),
        folders.Task("few", "classification", CLASSES[:30], 120, 0.9),
        folders.Task("captions", "retrieval", None, len(CLASSES), 0.4, captions),
    ]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    inputs = folders.write_grid(root, METHODS, [0], only=hostile_tasks())
    folders.leave_out(inputs["benchmarks"], {name: f"{name} cannot be scored" for name in FOLDERS})
    params = validate({"ablation": {"methods": METHODS, "seeds": [0]}, "tracking": {"uri": ""}}, where="test")
    run(params, inputs, root / "reports")
    return root


def test_the_table_shows_every_name_and_nothing_else(compared):
    page = check_dead((compared / "reports" / "comparison.md").read_text(encoding="utf-8"))
    rows = 1 + 1 + len(METHODS) + len(RATES)
    assert len(page.cells) == rows * (4 + len(hostile_tasks()))
    heads = [" ".join(cell.split()) for cell in page.cells[4 : 4 + len(hostile_tasks())]]
    assert sorted(heads) == sorted(" ".join(visible(task.name).split()) for task in hostile_tasks())


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("width", [320, 420, 768, 1280])
def test_the_page_shows_hostile_names_as_text_without_sideways_scrolling(compared, browser, width):
    path = compared / "reports" / "index.html"
    tab = browser.open(path, width=width)
    assert tab.errors() == []
    assert tab.requests() == [path.resolve().as_uri()]
    assert tab.evaluate("document.title").endswith("· cliprd")
    assert tab.evaluate("[document.scripts.length, document.querySelectorAll('[onerror], iframe, form').length]") == [
        1,
        0,
    ]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    text = tab.evaluate("document.documentElement.textContent")
    for name in CLASSES:
        assert visible(name) in text, visible(name)
    titles = "[...document.querySelectorAll('[data-tip], [alt], [title], [aria-label], [data-label]')]"
    attributes = tab.evaluate(
        titles
        + ".map(e => [...e.attributes].map(a => a.value).filter(v => !v.startsWith('data:')).join(' ')).join(' ')"
    )
    for shown in (text.replace("\n", "").replace("\t", ""), attributes.replace("\n", "")):
        assert not FORBIDDEN.search(shown), FORBIDDEN.findall(shown)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_the_comment_of_a_pull_request_shows_names_as_text(name):
    told = report(
        changes=[{"kind": name, "what": name, "before": name, "after": None}],
        notes=[name],
        why=name,
        stages=[name],
        place=name,
        champion=name,
        version=name,
        runner=name,
        method=name,
        pushed=name,
        asked_by={"who": name, "what": name},
    )
    figures = {name: interval(0.05, 0.03, 0.07)}
    told["decision"] |= {"reason": name, "notes": [name], "champion": name, "covers": name, "tasks": figures}
    told["decision"]["guards"][0] |= {"name": name, "note": name}
    scores = {
        "mean": interval(0.5, 0.4, 0.6),
        "tasks": {name: interval(0.5, 0.4, 0.6), "birds": interval(0.5, 0.4, 0.6)},
    }
    told["scores"] = {"candidate": scores, "champion": scores, "examples": {name: 100}}
    markdown = render(told)
    page = check_dead(markdown)
    assert [tag for tag in page.tags if tag == "pre"] == ["pre", "pre"]
    forest, diagram = (block for block in page.code if "├" in block or block.startswith("xychart"))
    assert forest.splitlines()[1].startswith(visible(name))
    assert "%%" not in diagram
    assert re.search(r'^    x-axis \["[\w .-]*", "[\w .-]*"\]$', diagram, re.MULTILINE)
    assert page.tags.count("tr") == 2 + 4 + 3  # changes, scores, the gate's figures: nothing has added a row


def test_names_that_mermaid_cannot_show_stay_distinct():
    from cliprd.retrain.pictures import bars

    side = {"tasks": {name: interval(0.5, 0.4, 0.6) for name in NAMES.values()}}
    line = bars({"candidate": side, "champion": None}).splitlines()[2]
    labels = re.findall(r'"([^"]*)"', line)
    assert len(set(labels)) == len(labels) == len(NAMES)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_the_model_card_shows_names_as_text(name):
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    results = {
        "model": {"method": name, "seed": 0, "dim": 8, "weights_sha256": name, "image": {"size": 32}},
        "reference": {"id": name},
        "cost": {"parameters": 10, "image_parameters": 5, "image_macs": 1000},
        "bootstrap": {"confidence": 0.95},
        "left_out": {name: name},
        "tasks": {name: {"images": 10, "protocols": {"standard": {"scores": {"acc1": score}}}}},
    }
    trained = {"params": {"distill": {"precision": name}}, "facts": {}, "inputs": {"shards": name}, "code": name}
    shards = {"fingerprint": name, "facts": {name[:20]: name[:20]}, "sources": [{"name": name}, {"name": name}]}
    lineage = {"inputs": {"shards": shards, "cache": {"inputs": {"teacher": {"fingerprint": name}}}}}
    card = model_card(
        title=name, trained=trained, results=results, lineage=lineage, decision=f"decided\n\n{''}", licence=""
    )
    page = check_dead(card)
    assert page.tags.count("tr") == 5 + 2
    assert page.tags.count("h1") == 1


def test_the_terminal_shows_names_as_text(compared, tmp_path, capsys):
    (compared / "params.yaml").write_text("{}")
    missing = tmp_path / "\x1b[31mno\n\u202esuch"
    arguments = [
        "--benchmarks",
        str(compared / "benchmark"),
        "--students",
        str(missing),
        "--output",
        str(tmp_path / "out"),
    ]
    assert cli.main(["compare", "--params", str(compared / "params.yaml"), *arguments]) == 3
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert not FORBIDDEN.search(err.strip())
    assert "\\u001b[31mno\\n\\u202esuch" in err
