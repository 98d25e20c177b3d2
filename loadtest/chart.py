"""A horizontal bar chart as SVG, readable on a light and on a dark page. No scripts, no external fonts.

Pure: rows in, text out.
"""

from xml.sax.saxutils import escape

WIDTH = 760
LABEL_WIDTH = 180
NOTE_WIDTH = 190
BAR_HEIGHT = 22
ROW_HEIGHT = 32
TOP = 58
BOTTOM = 34

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: 600 }
  .quiet { fill: #57606a; font-size: 12px }
  .ours { fill: #1a7f64 }
  .peer { fill: #8c959f }
  .own { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .quiet { fill: #9aa4ae }
    .ours { fill: #3fb68f }
    .peer { fill: #6e7681 }
  }
"""


def bars(rows, title, subtitle, footer):
    """Rows of (name, requests/s, CPU-µs per request), in the order they are drawn."""
    height = TOP + ROW_HEIGHT * len(rows) + BOTTOM
    highest = max((rate for _, rate, _ in rows), default=1) or 1
    room = WIDTH - LABEL_WIDTH - NOTE_WIDTH
    described = "; ".join(f"{name} {rate:,.0f} requests/s, {cpu:.1f} CPU-µs per request" for name, rate, cpu in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(described)}</desc>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(title)}</text>',
        f'<text class="quiet" x="8" y="42">{escape(subtitle)}</text>',
    ]
    for index, (name, rate, cpu) in enumerate(rows):
        top = TOP + index * ROW_HEIGHT
        ours = name.startswith("hoopsnake")
        width = max(1.0, room * rate / highest)
        base = top + BAR_HEIGHT - 6
        parts += [
            f'<text class="{"own" if ours else "other"}" x="{LABEL_WIDTH - 10}" y="{base}" '
            f'text-anchor="end">{escape(name)}</text>',
            f'<rect class="{"ours" if ours else "peer"}" x="{LABEL_WIDTH}" y="{top}" '
            f'width="{width:.1f}" height="{BAR_HEIGHT}" rx="3"/>',
            f'<text x="{LABEL_WIDTH + width + 8:.1f}" y="{base}">{rate:,.0f}/s'
            f'<tspan class="quiet" dx="8">{cpu:.1f} CPU-µs</tspan></text>',
        ]
    parts += [f'<text class="quiet" x="8" y="{height - 10}">{escape(footer)}</text>', "</svg>"]
    return "\n".join(parts) + "\n"
