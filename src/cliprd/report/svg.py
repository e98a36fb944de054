"""Building blocks of charts: escaped SVG elements, scales of axes, ticks.

Charts are inline SVG text without colours: a mark has the class of its series (`palette.Style.css`), and the style
sheet gives the class a colour in light mode, dark mode and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

from cliprd.names import visible

Value = str | float | int | None


def _text(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"
    return value if isinstance(value, Markup) else visible(value)


def element(tag: str, *children: str | Markup, **attributes: Value) -> Markup:
    """One element; children and attribute values that are no Markup are made visible and escaped.

    Attributes that are `None` are left out. In attribute names a trailing underscore is dropped and other underscores
    become dashes: `class_`, `text_anchor`. Floats have at most two decimals, since units are pixels.
    """
    names = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    inside = "".join(f' {name}="{escape(_text(value))}"' for name, value in names)
    content = "".join(escape(_text(child)) for child in children)
    return Markup(f"<{tag}{inside}>{content}</{tag}>" if content else f"<{tag}{inside}/>")  # noqa: S704 — all parts are escaped


def group(parts: Iterable[Markup], **attributes: Value) -> Markup:
    """A `<g>` around the parts."""
    return element("g", *parts, **attributes)


def canvas(
    width: float, height: float, parts: Iterable[Markup], *, label: str, class_: str = "chart", **more: Value
) -> Markup:
    """The `<svg>` element, which scales with its column; `label` is for screen readers."""
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {_text(width)} {_text(height)}",
        class_=class_,
        role="img",
        aria_label=label,
        **more,
    )


def tip(text: str) -> Markup:
    """A mark's tooltip: a native title, which the page's script replaces by a faster one."""
    return element("title", text)


@dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] to pixels in [start, end]; `log` needs low > 0."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, 1e-300))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers inside the range: about `count`, or powers of ten (with 2 and 5 if few)."""
        if self.log:
            return _log_ticks(self.low, self.high, count)
        return ticks(self.low, self.high, count)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that lie within [low, high]."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        marks = [f * 10.0**p for p in powers for f in factors if low * 0.999 <= f * 10.0**p <= high * 1.001]
        if len(marks) >= min(count, 3):
            break
    return marks


def padded(values: Iterable[float], *, share: float = 0.06) -> tuple[float, float]:
    """Lowest and highest of the finite values, widened by a share of their span; (0, 1) if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    margin = (high - low) * share or max(abs(high) * share, 1e-3)
    return low - margin, high + margin
