"""The quickstart's report as one page to look at: ``wakd report quickstart``, then ``python docs/tools/report.py reports/quickstart``.

Writes docs/pages/quickstart.html of its 03_compare: without links to files that are not kept here, and with its images in 256 colours,
which makes it half as large. A test says when the kit's page looks otherwise.
"""

import base64
import io
import re
import sys
from pathlib import Path

from PIL import Image

from wakd_kit.reporting.execute import recorded_parameters
from wakd_kit.reporting.pages import recipe_html
from wakd_kit.reporting.render import render
from wakd_kit.results.collect import collect
from wakd_kit.results.made import made
from wakd_kit.study.specification import load_study

PAGE = Path(__file__).parent.parent / "pages" / "quickstart.html"


def smaller(found: re.Match) -> str:
    """A PNG in a page, in 256 colours."""
    data = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(data, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def write(executed: Path) -> Path:
    """Render an executed 03_compare of the quickstart."""
    given = recorded_parameters(executed)
    study = collect(given["runs"], only=given["only"], strategies=given["strategies"])
    how = {
        **made(study),
        "command": "make report, or wakd report quickstart, which makes the pages of every run beside this one",
    }
    box = recipe_html(how, {"CE, sketch left out, seed 0": "explorer.html"})
    render(executed, PAGE, title=load_study("quickstart").title, question=False, box=box, parameters={})
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(r"data:image/png;base64,([\w+/=]+)", smaller, text), encoding="utf-8")
    return PAGE


if __name__ == "__main__":
    page = write(Path(sys.argv[1]) / "notebooks" / "03_compare.ipynb")
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
