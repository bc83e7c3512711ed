"""Formulas of a page: TeX between dollars becomes a shape in the colour of the text, so that a page needs no script and no font."""

from __future__ import annotations

import functools
import re
from html import escape

from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath

MATH = re.compile(r"\$\$(?P<display>[^$]+)\$\$|(?<![\\$\w])\$(?P<inline>[^$\s](?:[^$\n]*?[^$\s])?)\$(?![\w$])")
COMMANDS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}


def with_formulas(markdown: str) -> str:
    """Markdown whose ``$inline$`` and ``$$displayed$$`` TeX is SVG, or code where matplotlib's mathtext cannot read it; code stays
    as it is."""
    parts = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.S)
    return "".join(part if i % 2 else MATH.sub(_formula, part) for i, part in enumerate(parts))


def _formula(found: re.Match) -> str:
    shown = found["display"] is not None
    tex = " ".join((found["display"] or found["inline"]).split())
    try:
        svg = formula_svg(tex)
    except ValueError:  # no sign of it is Markdown's
        svg = f"<code>{''.join(c if c.isalnum() or c == ' ' else f'&#{ord(c)};' for c in tex)}</code>"
    return f'<div class="formula">{svg}</div>' if shown else svg


@functools.cache
def formula_svg(tex: str, size: float = 10) -> str:
    """One formula as SVG as high as the text around it, read aloud as its TeX. Raises ``ValueError`` for TeX that mathtext cannot read."""
    path = TextPath((0, 0), f"${tex}$", size=size, prop=FontProperties(math_fontfamily="stix"))
    box = path.get_extents()
    drawn = []
    for points, code in path.iter_segments():
        numbers = " ".join(f"{x:.2f} {-y:.2f}" for x, y in points.reshape(-1, 2)) if code != Path.CLOSEPOLY else ""
        drawn.append(f"{COMMANDS[code]}{numbers}")
    width, height, below = (f"{length / size:.3f}em" for length in (box.width, box.height, box.y0))
    view = f"{box.x0:.2f} {-box.y1:.2f} {box.width:.2f} {box.height:.2f}"
    return (
        f'<svg class="tex" role="img" aria-label="{escape(tex)}" viewBox="{view}" '
        f'style="width:{width};height:{height};vertical-align:{below}"><path fill="currentColor" d="{"".join(drawn)}"/></svg>'
    )
