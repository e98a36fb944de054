"""index.html in a real headless Chromium: whole, quiet, readable in every setting, and safe from its own data."""

import itertools
import re

import pytest

from cliprd.params import validate
from cliprd.report.page import render
from cliprd.report.results import Page
from cliprd.stages.compare import run
from tests.report import folders
from tests.report.browser import Browser

METHODS = ["baseline", "clip_kd", "clip_rd-raw", "clip_rd-exp"]
SECTIONS = ["results", "cost", "training", "retrieval", "confusion", "geometry", "provenance"]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("comparison")
    inputs = folders.write_grid(root, METHODS, [0])
    run(validate({"ablation": {"methods": METHODS, "seeds": [0]}}, where="test"), inputs, root / "reports")
    return root / "reports"


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def tab(browser, report):
    return browser.open(report / "index.html", width=1280)


def test_the_page_makes_no_requests_and_has_no_errors(tab, report):
    assert tab.errors() == []
    assert tab.requests() == [(report / "index.html").resolve().as_uri()]
    assert (report / "index.html").stat().st_size < 3_000_000


def test_the_test_browser_detects_errors_and_requests(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        '<script>throw Error("seen")</script><img src="http://127.0.0.1:9/x.png"><svg width=4000 height=9></svg>'
    )
    bad = browser.open(page, width=390)
    assert any("seen" in error for error in bad.errors())
    assert any("x.png" in address for address in bad.requests())
    assert bad.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_has_content(tab, section):
    text, marks, linked = tab.evaluate(
        f"""(() => {{ const s = document.getElementById({section!r});
        return [s.innerText.length, s.querySelectorAll('svg :is(path, rect, circle, polygon, line)').length,
                document.querySelectorAll('nav a[href="#{section}"]').length] }})()"""
    )
    assert text > 150
    assert linked == 1
    assert section == "provenance" or marks > 15


def test_every_chart_has_visible_marks(tab):
    charts = tab.evaluate(
        """[...document.querySelectorAll('svg.chart')].filter(s => s.getClientRects().length).map(s => {
             const marks = [...s.querySelectorAll('.mark, .line, .bin, .right, .wrong')];
             const frame = s.getBoundingClientRect();
             const drawn = marks.filter(m => { const c = getComputedStyle(m), b = m.getBoundingClientRect();
               return (b.width > 0.5 || b.height > 0.5) && (c.fill !== 'none' || c.stroke !== 'none'); });
             const outside = drawn.filter(m => { const b = m.getBoundingClientRect();
               return b.right < frame.left || b.left > frame.right || b.bottom < frame.top || b.top > frame.bottom; });
             return [s.getAttribute('aria-label'), frame.width, drawn.length, outside.length]; })"""
    )
    assert len(charts) > 40
    for label, width, drawn, outside in charts:
        assert label
        assert width > 150, label
        assert drawn >= 1, label
        assert outside == 0, label


def test_curves_are_the_terms_of_the_methods(tab):
    panels = dict(
        tab.evaluate(
            """[...document.querySelectorAll('#training figure')].map(f => [f.querySelector('h4').textContent.trim(),
                 [...f.querySelectorAll('path.line')].map(p => p.dataset.label)])"""
        )
    )
    assert panels["loss"] == panels["task"] == METHODS
    assert panels["fd"] == METHODS[1:]
    assert panels["vrd_ce_text"] == panels["xrd"] == METHODS[2:]
    assert {"student_scale", "cross_scale", "image_scale", "text_scale", "grad_norm", "lr"} <= panels.keys()


def test_a_method_looks_the_same_everywhere(tab):
    found = tab.evaluate(
        """[...document.querySelectorAll('#training path.line')].map(p => [p.dataset.label, getComputedStyle(p).stroke])
           .concat([...document.querySelectorAll('.legend button')].map(b =>
             [b.textContent.trim(), getComputedStyle(b.querySelector('.mark')).fill]))"""
    )
    colours = {label: {colour for other, colour in found if other == label} for label in METHODS}
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == len(METHODS)


def test_pictures_decode_and_right_ones_are_marked(tab):
    images = tab.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length > 0])")
    assert len(images) > 100
    assert all(complete and width == 96 and told for complete, width, told in images)
    for kind in ("Both right", "Only the teacher right", "Both wrong"):
        assert kind in tab.evaluate("document.getElementById('retrieval').innerText")
    answers = tab.evaluate(
        """[...document.querySelectorAll('.answer')].map(a => [a.querySelector('.who span').textContent,
             [...a.querySelectorAll('.shot')].findIndex(s => s.classList.contains('hit'))])"""
    )
    for said, place in answers:
        rank = 1 if said == "right at once" else int(said.rsplit(" ", 1)[1])
        assert place == (rank - 1 if rank <= 5 else -1)


def test_hostile_captions_and_class_names_stay_text(tab, report):
    assert tab.evaluate("document.title").endswith("· cliprd")
    assert tab.evaluate("document.querySelectorAll('script').length") == 1
    assert folders.HOSTILE in tab.evaluate(
        "[...document.querySelectorAll('blockquote')].map(q => q.textContent).join('|')"
    )
    assert not tab.evaluate("[...document.images].some(i => i.getAttribute('onerror'))")
    text = (report / "index.html").read_text(encoding="utf-8")
    assert "<script>document" not in text
    assert "<b>bold" not in text


@pytest.mark.parametrize("width", [420, 1280])
def test_labels_do_not_overlap(browser, report, width):
    """As the browser sets them, with its own fonts."""
    tab = browser.open(report / "index.html", width=width)
    touching = tab.evaluate(
        """[...document.querySelectorAll('svg.wide, svg.layout')].filter(s => s.getClientRects().length).flatMap(s => {
             const box = e => e.getBoundingClientRect();
             const labels = [...s.querySelectorAll('text.label')], marks = [...s.querySelectorAll('.mark')];
             const inner = b => ({left: b.left + 1, right: b.right - 1, top: b.top + 0.2 * b.height,
                                  bottom: b.bottom - 0.2 * b.height});  // a line's box is higher than its letters
             const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
             return labels.flatMap((l, i) => [...marks, ...labels.slice(i + 1)].filter(o => meet(inner(box(l)), box(o)))
               .map(o => [s.getAttribute('aria-label'), l.textContent, o.textContent])); })"""
    )
    assert touching == []


@pytest.mark.parametrize(("width", "scheme"), list(itertools.product((1280, 768, 420, 320), ("light", "dark"))))
def test_no_setting_overflows_or_hides_text(browser, report, width, scheme):
    tab = browser.open(report / "index.html", width=width, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = tab.evaluate("['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])")
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper))
    assert (ink < 150 and paper > 700) if scheme == "light" else (ink > 650 and paper < 100)
    wide = tab.evaluate(
        """[...document.querySelectorAll('main > section > *, .tiles > *, .cards > *, .queries > *')].filter(e =>
             e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.className)"""
    )
    assert wide == []


def test_the_protocol_switch_works_without_scripts(browser, report):
    tab = browser.open(report / "index.html", width=1280, scripts=False)
    assert tab.errors() == []
    tab.send("Emulation.setScriptExecutionDisabled", value=False)  # the page's script has not run; ours may
    assert tab.evaluate("document.getElementById('tip')") is None

    def shown():
        look = "[...document.querySelectorAll('#results > div[class^=p-]')]"
        return tab.evaluate(look + ".filter(d => d.getClientRects().length).map(d => d.className)")

    assert shown() == ["p-standard"]
    box = tab.evaluate(
        """(() => { const l = document.getElementById('protocol-paper').parentElement;
        l.scrollIntoView({block: 'center'});
        const b = l.getBoundingClientRect();
        return [b.x + b.width / 2, b.y + b.height / 2] })()"""
    )
    for kind in ("mousePressed", "mouseReleased"):
        tab.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
    assert shown() == ["p-paper"]
    assert tab.evaluate("document.querySelectorAll('svg title').length") > 500  # marks still tell by native titles


def test_tooltips_show_values_of_marks_and_curves(tab):
    tab.front()

    def point(selector, share=0.5):
        x, y = tab.evaluate(
            f"""new Promise(done => {{
              const e = document.querySelector({selector!r});
              e.scrollIntoView({{block: 'center', behavior: 'instant'}});
              const b = e.getBoundingClientRect();
              const at = [b.x + b.width * {share}, b.y + b.height / 2];
              requestAnimationFrame(() => requestAnimationFrame(() => done(at))); }})"""  # the scroll event comes first
        )
        tab.move(x, y)
        said = "(t => t.classList.contains('on') ? t.textContent : '')(document.getElementById('tip'))"
        return tab.evaluate(said)

    assert re.fullmatch(
        r"baseline: −[\d.]+ \[−[\d.]+, −[\d.]+\] points", point("#results .p-standard figure .row .hit")
    )
    assert re.search(r"recognised: \d+ of \d+ \(\d+%\)", point("#confusion .p-standard .matrix .right"))
    lines = point("#training svg.curves", 0.6).split("\n")
    assert re.fullmatch(r"step \d+", lines[0])
    assert 200 < int(lines[0].split()[1]) < 300
    assert {line.split("  ")[0] for line in lines[1:]} == set(METHODS)
    values = {line.split("  ")[0]: float(line.split("  ")[1]) for line in lines[1:]}
    assert 1.5 < values["baseline"] < 4  # the synthetic task loss there, read back through the axis


def test_a_legend_entry_highlights_its_lines(tab):
    press = "document.querySelector('.legend button[data-css=m1]').click()"
    look = """['m1', 'm3'].map(c => +getComputedStyle(document.querySelector('#training path.' + c)).opacity)"""
    tab.evaluate(press)
    assert tab.evaluate(look) == [1, 0.13]
    tab.evaluate(press)
    assert tab.evaluate(look) == [1, 1]


def test_the_page_can_be_printed(browser, report):
    document = browser.open(report / "index.html", width=1280, scheme="dark").pdf()
    assert document.startswith(b"%PDF")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", document)) < 40


def test_a_page_with_scores_only_is_readable(browser, report, tmp_path):
    page = tmp_path / "bare.html"
    page.write_text(render(Page(comparison=folders.read(report / "comparison.json"))), encoding="utf-8")
    tab = browser.open(page, width=1280)
    assert tab.errors() == []
    assert "No retrieval task" in tab.evaluate("document.getElementById('retrieval').innerText")


def test_a_missing_browser_is_a_failure_that_says_how_to_get_one(monkeypatch):
    from tests.report import browser as module

    monkeypatch.delenv("CLIPRD_CHROMIUM", raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="apt-get install -y chromium"):
        module.executable()
