"""Bars of the rows as one SVG: tokens a second of each engine, a panel for each job and kind of cell."""

import statistics
from xml.sax.saxutils import escape

from table import number

BAR, GAP, LEFT, WIDTH, HEAD = 13, 9, 150, 460, 26
COLORS = ("#1b6ca8", "#d1603d", "#7a9e3f", "#8a6bb1", "#b49fd0", "#c8a22c", "#6f7f8c")


def chart(rows, engines):
    """The text of the file."""
    colors = dict(zip((engine.name for engine in engines), COLORS, strict=False))
    parts, y = [], 10
    for job, cells in rows.jobs().items():
        parts.append(label(8, y + 14, str(job), "bold"))
        y += HEAD
        for cell in sorted(cells, key=lambda cell: (cell.kind != "prefill", cell.tokens)):
            times = {name: rows.seconds(name, job, cell) for name in colors}
            rates = {name: cell.tokens / statistics.median(of) for name, of in times.items() if of}
            if not rates:
                continue
            parts.append(label(8, y + BAR - 2, str(cell)))
            for name, rate in rates.items():
                length = max(1, WIDTH * rate / max(rates.values()))
                parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 2}" '
                             f'fill="{colors[name]}"/>')
                parts.append(label(LEFT + length + 5, y + BAR - 3, f"{number(rate)}  {name}"))
                y += BAR
            y += GAP
        y += GAP
    width = LEFT + WIDTH + 170
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" '
            f'font-family="sans-serif" font-size="11"><rect width="{width}" height="{y}" fill="white"/>\n'
            + "\n".join(parts) + "\n</svg>\n")


def label(x, y, text, weight="normal"):
    return f'<text x="{x:.1f}" y="{y}" font-weight="{weight}">{escape(text)}</text>'
