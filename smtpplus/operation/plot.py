"""Bars of sums: for the terminal in block characters, and as an SVG file that any browser shows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from smtpplus.observation.statistics import Sums

_EIGHTHS = " ▏▎▍▌▋▊▉"
_PARTS = (("delivered", "#2e7d32"), ("failed", "#c62828"), ("waiting", "#f9a825"))
_ROW, _LEFT, _WIDTH, _TOP = 22, 260, 560, 60  # of the SVG, in its units


def bar(value: float, most: float, width: int) -> str:
    """A bar of up to `width` characters."""
    eighths = round(value / most * width * 8) if most else 0
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def parts(sums: Sums) -> tuple[int, int, int]:
    """Recipients delivered, failed, and not yet either."""
    return sums.delivered, sums.failed, max(0, sums.recipients - sums.delivered - sums.failed - sums.cancelled)


def lines(rows: Sequence[tuple[str, Sums]], width: int = 40) -> list[str]:
    """One line for each row: key, bar of its recipients, number."""
    most = max((sums.recipients for _, sums in rows), default=0)
    wide = min(40, max((len(_cut(key, 40)) for key, _ in rows), default=0))
    return [f"{_cut(key, wide):{wide}} {bar(sums.recipients, most, width):{width}} {sums.recipients}" for key, sums in rows]


def svg(title: str, rows: Sequence[tuple[str, Sums]]) -> str:
    """An SVG picture: a bar for each row, cut into what was delivered, failed, and waits."""
    most = max((sums.recipients for _, sums in rows), default=0) or 1
    height = _TOP + _ROW * len(rows) + 20
    width = _LEFT + _WIDTH + 100
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="22" font-size="16">{escape(title)}</text>',
    ]
    for number, (name, colour) in enumerate(_PARTS):
        drawn.append(f'<rect x="{_LEFT + 110 * number}" y="34" width="12" height="12" fill="{colour}"/>')
        drawn.append(f'<text x="{_LEFT + 110 * number + 17}" y="45">{name}</text>')
    for number, (key, sums) in enumerate(rows):
        drawn += _drawn_row(_TOP + _ROW * number, key, sums, most)
    return "\n".join([*drawn, "</svg>"]) + "\n"


def _drawn_row(top: int, key: str, sums: Sums, most: int) -> list[str]:
    drawn = [f'<text x="{_LEFT - 8}" y="{top + 15}" text-anchor="end">{escape(_cut(key, 36))}</text>']
    left = float(_LEFT)
    for (name, colour), value in zip(_PARTS, parts(sums), strict=True):
        wide = value / most * _WIDTH
        if wide:
            tip = f"<title>{name}: {value}</title>"
            drawn.append(f'<rect x="{left:.1f}" y="{top + 3}" width="{wide:.1f}" height="{_ROW - 6}" fill="{colour}">{tip}</rect>')
        left += wide
    drawn.append(f'<text x="{left + 6:.1f}" y="{top + 15}">{sums.recipients}</text>')
    return drawn


def _cut(text: str, most: int) -> str:
    text = text or "(none)"
    return text if len(text) <= most else text[: most - 1] + "…"
