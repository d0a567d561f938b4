"""SVG figures of the schedules, drawn by hand: text in, text out, the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator

from ramforge.runtime.bench.schedule_report import STATUS, Document, Figures, Lanes, widest_gain

WIDTH = 900
_LEFT, _RIGHT = 110, 20
_FONT = 'font-family="sans-serif" font-size="12"'
_RULES = {"waves-fast": "#9aa7b8", "waves-efficient": "#d9b26f", "waves-selected": "#3b7dd8"}
_LABELS = {
    "waves-fast": "fastest alone",
    "waves-efficient": "most efficient",
    "waves-selected": "selected",
}
_BAR = 9
_ROW = 3 * _BAR + 10
_LANES = 200  # the height of a timeline


def selection(document: Document) -> str:
    """Bars for each model: the waves schedule with each rule; then one wave, twice."""
    bars = list(_bars(document, 50))
    bottom = 50 + _ROW * len(document.models) + 30
    model = widest_gain(document)
    timelines = [] if model is None else list(_timelines(model, bottom))
    height = bottom + (2 * (_LANES + 50) + 20 if timelines else 0)
    title = f"Selection of kernels, {document.target}: {STATUS}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {_FONT}>',
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            _text(10, 18, title, "bold"),
            *_legend(36),
            *bars,
            *timelines,
            "</svg>\n",
        ]
    )


def _legend(y: int) -> Iterator[str]:
    for number, (name, color) in enumerate(_RULES.items()):
        x = _LEFT + 130 * number
        yield _rectangle(x, y - 10, 10, 10, color)
        yield _text(x + 15, y, _LABELS[name])


def _bars(document: Document, top: int) -> Iterator[str]:
    longest = max(
        (
            model.plans[name].makespan_us / model.plans["waves-fast"].makespan_us
            for model in document.models
            for name in _RULES
        ),
        default=1.0,
    )
    scale = (WIDTH - _LEFT - _RIGHT - 60) / longest
    for number, model in enumerate(document.models):
        y = top + _ROW * number
        yield _text(10, y + 2 * _BAR, model.model)
        fast = model.plans["waves-fast"].makespan_us
        for bar, (name, color) in enumerate(_RULES.items()):
            own = model.plans[name].makespan_us
            width = own / fast * scale
            yield _rectangle(_LEFT, y + bar * _BAR, width, _BAR - 1, color)
            label = f"{own:.0f} us"
            yield _text(_LEFT + width + 5, y + (bar + 1) * _BAR - 1, label, size=9)


def _timelines(model: Figures, top: int) -> Iterator[str]:
    wave = model.wave
    assert wave is not None
    longest = max(wave.fast.time_us, wave.selected.time_us)
    for number, (label, lanes) in enumerate(
        (("fastest alone", wave.fast), ("selected", wave.selected))
    ):
        y = top + number * (_LANES + 50)
        text = (
            f"{model.model}, wave {wave.number}, {wave.roperators} rOperators, {label}: "
            f"{lanes.time_us:.1f} us on {lanes.units} vEUs"
        )
        yield _text(10, y, text)
        yield from _timeline(lanes, y + 10, longest, wave.roperators)


def _timeline(lanes: Lanes, top: int, longest_us: float, operators: int) -> Iterator[str]:
    across = (WIDTH - _LEFT - _RIGHT) / longest_us
    down = _LANES / lanes.units
    yield _rectangle(_LEFT, top, WIDTH - _LEFT - _RIGHT, _LANES, "#f2f2f2")
    yield _text(10, top + _LANES / 2, f"{lanes.units} vEUs")
    for box in lanes.boxes:
        yield _rectangle(
            _LEFT + box.start_us * across,
            top + box.lane * down,
            (box.end_us - box.start_us) * across,
            box.lanes * down,
            _color(box.operator, operators),
        )
    yield _text(_LEFT, top + _LANES + 15, "0")
    x = WIDTH - _RIGHT
    yield _text(x, top + _LANES + 15, f"{longest_us:.1f} us", anchor="end")


def _color(number: int, of: int) -> str:
    return f"hsl({360 * number // max(of, 1)},55%,{62 if number % 2 else 72}%)"


def _rectangle(x: float, y: float, width: float, height: float, color: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'
    )


def _text(
    x: float, y: float, text: str, weight: str = "normal", size: int = 12, anchor: str = "start"
) -> str:
    plain = text.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}" font-size="{size}" '
        f'text-anchor="{anchor}">{plain}</text>'
    )
