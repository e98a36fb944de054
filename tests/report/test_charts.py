"""Charts as markup: escaped, to scale, and with the marks that the numbers ask for."""

import re
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprd.formatting import duration, figure, number, size
from cliprd.report import geometry
from cliprd.report.charts import curves, density, forest, layout, matrix, tradeoff
from cliprd.report.charts.labels import Box, around, width
from cliprd.report.confusion import counts, most_confused
from cliprd.report.palette import DARK, LIGHT, MARKERS, TEACHER, Style, styles
from cliprd.report.results import Measured
from cliprd.report.svg import Scale, element, ticks

EVIL = '"><script>alert(1)</script>'
STYLE = Style("m0", "circle")


def timing(value, low=None, high=None):
    return Measured(value=value, low=low or value, high=high or value, count=1)


def parsed(markup):
    root = ElementTree.fromstring(str(markup))
    return root, [node.tag for node in root.iter()]


def test_elements_escape_text_and_attributes():
    text = str(element("text", EVIL, data_label=EVIL))
    assert "<script" not in text
    node = ElementTree.fromstring(text)
    assert node.text == EVIL
    assert node.get("data-label") == EVIL


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.31, 0.27), (3, 4800), (1e-5, 3e-5)])
def test_ticks_are_few_and_inside(low, high):
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-12 <= t <= high + 1e-12 for t in found)
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_a_logarithmic_scale_maps_equal_ratios_to_equal_distances():
    x = Scale(10, 1000, 0, 100, log=True)
    assert x(100) == pytest.approx(50)
    assert {10, 100, 1000} <= set(np.round(x.ticks(3)).tolist())


def test_numbers_are_short():
    assert [number(v) for v in (27_400_000, 1234, 0.00012, -2, 7)] == ["27.4M", "1.23k", "0.00012", "−2", "7"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(17_570, "17,570"), (1_234_567.8, "1,234,568"), (999.96, "1,000"), (12.345, "12.35"), (0.00051, "0.00051"),
     (0, "0"), (-3.14159, "−3.142"), (1e-7, "1e−07"), (float("nan"), "–"), (99_999.5, "100,000")],
)  # fmt: skip
def test_figures_have_no_exponents(value, shown):
    assert figure(value) == shown


@given(st.floats(1e-6, 1e12))
def test_figures_have_no_exponent_and_are_accurate(value):
    shown = figure(value)
    assert "e" not in shown
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=1e-3)
    assert "e" not in number(value)
    assert float(number(value).rstrip("kMG").replace(",", "")) < 1e6


def test_sizes_and_durations_have_readable_units():
    assert [size(n) for n in (999, 29_960_000, 1_200_000_000)] == ["999 B", "30 MB", "1.2 GB"]
    assert [duration(s) for s in (4.2, 89, 600, 12_000)] == ["4.2 s", "89 s", "10 min", "3 h 20 min"]


def boxes(root, tag_classes):
    """Boxes of the labels and marks that a chart draws, from the drawn attributes alone."""
    labels, marks = [], []
    for node in root.iter():
        kinds = (node.get("class") or "").split()
        if node.tag == "text" and tag_classes in kinds:
            long = width(node.text, 11.5 if tag_classes == "label" and "halo" not in kinds else 10.5)
            left = float(node.get("x")) - {"start": 0, "middle": long / 2, "end": long}[node.get("text-anchor")]
            labels.append(Box(left, float(node.get("y")) - 8, left + long, float(node.get("y")) + 2))
        elif "mark" in kinds:
            if node.tag == "circle":
                marks.append(around(float(node.get("cx")), float(node.get("cy")), float(node.get("r"))))
            else:
                x, y = zip(*(map(float, p.split(",")) for p in node.get("points").split()), strict=True)
                marks.append(Box(min(x), min(y), max(x), max(y)))
    return labels, marks


def check_apart(labels, marks):
    for i, label in enumerate(labels):
        assert not any(label.overlaps(other) for other in [*marks, *labels[i + 1 :]])


scores = st.floats(0, 1).map(lambda v: {"value": v, "low": max(0, v - 0.02), "high": min(1, v + 0.02)})
models = st.tuples(
    st.sampled_from(["teacher", "baseline", "clip_rd-exp", "clip_rd-raw, best of 12", "vrd", "中文方法的名字"]),
    st.sampled_from([TEACHER, *(Style(f"m{i}", marker) for i, marker in enumerate(MARKERS))]),
    st.floats(1, 1e5),
    scores,
)


@settings(deadline=None)
@given(st.lists(models, min_size=1, max_size=9), st.booleans())
def test_labels_of_models_do_not_overlap(drawn, same):
    points = [tradeoff.Point(label, style, timing(500 if same else x), score) for label, style, x, score in drawn]
    root, _ = parsed(tradeoff.tradeoff(points, x_label="images per second"))
    labels, marks = boxes(root, "label")
    assert len(marks) == len(points)
    assert len(labels) == len(points), "each is named"
    check_apart(labels, marks)
    order = [kind for node in root.iter() if (kind := node.get("class")) in ("mark", "label")]
    assert order == ["mark"] * len(points) + ["label"] * len(points), "labels are drawn last"


@settings(deadline=None)
@given(st.integers(3, 40), st.integers(0, 1000), st.floats(0, 1), st.sampled_from(["class", "W", "中文类别", "Iii"]))
def test_labels_of_classes_do_not_overlap(count, seed, drift, name):
    rng = np.random.default_rng(seed)
    where = rng.normal(size=(count, 2))
    names = [f"{name} {i}" for i in range(count)]
    root, tags = parsed(layout.drift("t", names, where, where + drift * rng.normal(size=where.shape), STYLE))
    labels, marks = boxes(root, "halo")
    check_apart(labels, marks)
    assert tags.count("title") == count


def test_a_speed_of_several_timings_is_one_mark_with_its_range():
    score = {"value": 0.4, "low": 0.38, "high": 0.42}
    root, _ = parsed(tradeoff.tradeoff([tradeoff.Point("s", STYLE, timing(17_570, 9_000, 21_000), score)], x_label="x"))
    level = [n for n in root.iter("line") if n.get("class") == "whisker" and n.get("y1") == n.get("y2")]
    assert len(level) == 1
    assert float(level[0].get("x1")) < float(level[0].get("x2"))
    assert root.find(".//title").text == "s: 40.0 [38.0, 42.0], at 17,570 [9,000, 21,000]"


def test_forest_places_whiskers_to_scale_and_hollows_what_spans_zero():
    rows = [
        forest.ForestRow("a", STYLE, {"value": 0.02, "low": 0.01, "high": 0.03}),
        forest.ForestRow(EVIL, STYLE, {"value": 0.0, "low": -0.02, "high": 0.02}),
    ]
    reach = forest.domain(rows)
    assert reach[0] < -2
    assert reach[1] > 3
    markup = str(forest.forest("t", rows, reach))
    assert "<script" not in markup
    assert markup.count("hollow") == 1
    whiskers = [tuple(map(float, m)) for m in re.findall(r'<line x1="([\d.]+)" x2="([\d.]+)"[^>]*whisker', markup)]
    assert (whiskers[0][1] - whiskers[0][0]) * 2 == pytest.approx(whiskers[1][1] - whiskers[1][0], rel=0.01)


def test_long_histories_are_thinned_without_losing_their_level():
    y = np.linspace(5, 1, 10_001)
    line = curves.thinned(list(range(10_001)), y.tolist(), 100)
    assert len(line) == 100
    assert np.mean([b for _, b in line]) == pytest.approx(3, abs=0.01)
    assert curves.thinned([1, 2, 3], [1.0, float("nan"), 2.0]) == [(1, 1.0), (3, 2.0)]


def test_a_panel_has_a_line_per_series_and_its_ranges_as_data():
    series = [curves.Series("a", STYLE, [1, 2, 3], [3, 2, 1]), curves.Series("b", STYLE, [1, 2, 3], [1, 1, 1])]
    root, _ = parsed(curves.panel("loss", series))
    assert [n.get("data-label") for n in root.iter("path")] == ["a", "b"]
    low, high, start, end = map(float, root.get("data-x").split())
    assert (low, high) == (1, 3)
    first = root.find(".//path").get("d")
    assert first.startswith(f"M{start:.1f} ")
    assert f"L{end:.1f} " in first


def test_a_heat_map_draws_each_count_once_with_a_tooltip():
    grid = counts(np.array([0, 0, 0, 1, 2]), np.array([0, 1, 1, 1, 0]), 3)
    assert grid.tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]
    root, _ = parsed(matrix.heatmap("m", ["cat", EVIL, "a very long name of a class"], grid.tolist(), css="m0"))
    marks = [n for n in root.iter("rect") if n.get("class") in ("right", "wrong")]
    assert [m.get("class") for m in marks] == ["right", "wrong", "right", "wrong"]
    assert marks[0].find("title").text == "cat recognised: 1 of 3 (33%)"
    assert most_confused(grid, ["cat", "dog", "cow"]) == [("cat", "dog", 2, 3)]  # once is no pattern


def test_hexagons_lie_where_the_pairs_are():
    x = np.array([0.5] * 50 + [-0.5], dtype=np.float32)
    root, _ = parsed(density.hexbin("t", x, x, STYLE, (-1, 1), x_label="teacher", y_label="student"))
    bins = [n for n in root.iter("path") if n.get("class") == "bin"]
    assert len(bins) == 2  # two places, of two densities
    places = sorted(tuple(map(float, re.match(r"M([\d.]+) ([\d.]+)", n.get("d")).groups())) for n in bins)
    assert places[0][0] < places[1][0]
    assert places[0][1] > places[1][1]


def test_names_of_classes_do_not_overlap():
    rng = np.random.default_rng(0)
    where = rng.normal(size=(30, 2))
    root, tags = parsed(layout.drift("t", [f"class {i}" for i in range(30)], where, where + 0.05, STYLE))
    boxes = []
    for node in root.iter("text"):
        x, y, width = float(node.get("x")), float(node.get("y")), len(node.text) * 5.6
        left = x - {"start": 0, "middle": width / 2, "end": width}[node.get("text-anchor")]
        boxes.append((left, left + width, y - 8, y + 1))
    assert 5 < len(boxes) <= 30
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3] for b in boxes[i + 1 :])
    assert tags.count("title") == 30  # every class can still be asked for


def test_trade_off_puts_the_faster_to_the_right_and_the_better_above():
    slow = tradeoff.Point("teacher", TEACHER, timing(30), {"value": 0.6, "low": 0.58, "high": 0.62})
    fast = tradeoff.Point("student", STYLE, timing(500), {"value": 0.4, "low": 0.38, "high": 0.42})
    root, _ = parsed(tradeoff.tradeoff([slow, fast], x_label="images per second"))
    texts = {n.text: n for n in root.iter("text")}
    assert float(texts["teacher"].get("x")) < float(texts["student"].get("x"))
    assert float(texts["teacher"].get("y")) < float(texts["student"].get("y"))


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("colours", "paper"), [(LIGHT, "#ffffff"), (DARK, "#1b1e22")])
def test_colours_have_contrast_with_the_page(colours, paper):
    for colour in colours:
        light, dark = sorted((luminance(colour), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


def test_a_method_has_one_colour_everywhere_and_no_two_share_one():
    few = styles(["clip_kd", "clip_rd-exp"])
    many = styles(["baseline", "clip_kd", "vrd", "xrd", "clip_rd", "clip_rd-raw", "clip_rd-exp"])
    assert few["clip_kd"] == many["clip_kd"]
    assert few["clip_rd-exp"] == many["clip_rd-exp"]
    assert len({style.css for style in many.values()}) == len(many)
    crowd = styles([f"{m}{s}" for m in ("baseline", "clip_kd", "vrd", "xrd", "clip_rd") for s in ("", "-raw", "-exp")])
    assert len({(style.css, style.dash) for style in crowd.values()}) == len(crowd) == 16  # and the teacher


def test_a_rotated_and_scaled_space_is_fully_explained():
    rng = np.random.default_rng(2)
    teacher = rng.normal(size=(9, 12))
    turn, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    where, kept = geometry.onto(teacher, 3.0 * teacher @ turn + 5)
    assert kept == pytest.approx(1)
    np.testing.assert_allclose(where, teacher - teacher.mean(axis=0), atol=1e-9)
    _, lost = geometry.onto(teacher, rng.normal(size=(9, 5)))
    assert 0 < lost < 0.9


def test_the_plane_has_the_largest_variance_and_fixed_signs():
    rng = np.random.default_rng(3)
    means = rng.normal(size=(8, 5)) * np.array([1, 9, 1, 4, 1])
    places, directions = geometry.plane(means)
    assert np.abs(directions[0]).argmax() == 1
    assert np.abs(directions[1]).argmax() == 3
    assert directions[0, 1] > 0
    assert directions[1, 3] > 0
    np.testing.assert_allclose(places, (means - means.mean(axis=0)) @ directions.T)


def test_class_means_and_pairs():
    rows = np.array([[1.0, 0], [0, 1], [1, 0]], dtype=np.float32)
    np.testing.assert_allclose(geometry.class_means(rows, np.array([0, 1, 1]), 3), [[1, 0], [0.5, 0.5], [0, 0]])
    np.testing.assert_allclose(geometry.pair_similarities(rows), [0, 1, 0])
    assert geometry.pair_similarities(rows, rows[:1]).tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", ["x" * 1_000_000, "e" + "\u0301" * 1_000_000, "\n" * 1_000_000])
def test_very_long_names_are_cut_quickly(name):
    from cliprd.report.charts.matrix import LONGEST, short
    from cliprd.report.results import shown_classnames

    begin = time.perf_counter()
    (shown,) = shown_classnames([name])
    for label in (short(name), short(shown)):
        assert label.endswith("…")
        assert width(label, 10.5) <= LONGEST
        assert len(label) <= 101
    assert len(shown) == 201
    assert time.perf_counter() - begin < 10
