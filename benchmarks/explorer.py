"""How long the explorer takes from a hand to changed pixels, in JupyterLab in headless Chromium, on a recorded digits run.

python benchmarks/explorer.py [--run FOLDER] [--moves 60]

Dragging and arrow keys are answered by the page alone, a strategy's setting by the kernel. Time runs from the input event (its
own time stamp) to the first frame with other pixels that the browser puts out after it.
"""

import argparse
import base64
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

import wakd_kit as wk
from tests.lab import browser, lab, run_all
from wakd_kit.study.run import NOTEBOOKS

RECORD = """() => {
  window.inputs = [];
  for (const kind of ["pointermove", "keydown"])
    window.addEventListener(kind, (e) => inputs.push(performance.timeOrigin + e.timeStamp), true);
}"""


def record(folder: Path) -> Path:
    split = wk.leave_one_out(wk.load_domains("digits"), "sketch", 0)
    student = wk.build_model("resnet10t_w16", split.classes, seed=0)
    run = wk.train(student, split, steps=600, segment_length=30, learning_rate=0.01, save_to=folder / "student")
    wk.window_map(run, grid=20, progress=True)
    return run.folder


class Frames:
    """The frames that a page puts out: when, and the pixels of the curves, the coefficients and the table in them."""

    def __init__(self, page):
        self.page, self.seen = page, []
        box = page.locator(".wk-top").bounding_box()
        self.crop = (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
        self.session = page.context.new_cdp_session(page)
        self.session.on("Page.screencastFrame", self._frame)
        self.session.send("Page.startScreencast", {"format": "png", "everyNthFrame": 1})

    def _frame(self, frame: dict) -> None:
        self.session.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})
        self.seen.append((1e3 * frame["metadata"]["timestamp"], frame["data"]))

    def pixels(self, data: str) -> bytes:
        return Image.open(io.BytesIO(base64.b64decode(data))).crop(self.crop).tobytes()

    def after(self, act) -> float | None:
        """Milliseconds from the input event that ``act`` causes to the first frame after it whose pixels differ."""
        self.page.evaluate("inputs.length = 0")
        before, self.seen = self.pixels(self.seen[-1][1]), self.seen[-1:]
        act()
        deadline = time.perf_counter() + 3
        while time.perf_counter() < deadline:
            self.page.wait_for_timeout(5)
            start = self.page.evaluate("inputs[0] ?? null")
            found = [at for at, data in self.seen if start and at >= start and self.pixels(data) != before]
            if found:
                self.page.wait_for_timeout(350)  # until the kernel was asked for exact scores, and has answered
                return found[0] - start
        return None


def measure(page, moves: int) -> None:
    page.evaluate(RECORD)
    page.locator(".wk-top").scroll_into_view_if_needed()
    frames = Frames(page)
    page.wait_for_timeout(1500)
    box = page.locator(".wk-curve").first.bounding_box()
    left, width, y = box["x"], box["width"], box["y"] + box["height"] / 2

    def to(share: float):
        return lambda: page.mouse.move(left + share * width, y)

    edges = (np.arange(moves) % 16 + 1) / 20
    start = page.locator(".wk-begin").bounding_box()
    page.mouse.move(start["x"] + 1, y)
    page.mouse.down()
    report("dragging an edge", [frames.after(to(share)) for share in edges])
    page.mouse.up()
    page.locator(".wk-strategy select").select_option("wakd")
    page.wait_for_timeout(1500)
    page.locator(".wk-begin").focus()
    keys = ["ArrowLeft" if i // 8 % 2 else "ArrowRight" for i in range(moves)]
    report("arrow keys", [frames.after(lambda key=key: page.keyboard.press(key)) for key in keys])
    page.locator(".wk-strategy select").select_option("wakd")
    page.wait_for_timeout(1500)
    page.locator(".wk-set-begin .noUi-handle").focus()
    report("a setting (through the kernel)", [frames.after(lambda key=key: page.keyboard.press(key)) for key in keys])


def report(what: str, times: list) -> None:
    known = np.array([t for t in times if t is not None])
    low, high = np.percentile(known, [50, 90])
    print(
        f"{what:32} n {len(known):3} of {len(times)}   median {low:5.0f} ms   90th percentile {high:5.0f} ms",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", type=Path, help="a recorded run with a window map; default: record one on digits")
    options.add_argument("--moves", type=int, default=60)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = given.run.absolute() if given.run else record(Path(folder))
        book = json.loads((NOTEBOOKS / "10_explore_averaging.ipynb").read_text())
        book["cells"] = book["cells"][:5]
        book["cells"][1]["source"] = [f"runs = {str(run)!r}\n", "window_map_grid = 20"]
        (Path(folder) / "explore.ipynb").write_text(json.dumps(book))
        with lab(Path(folder)) as address, browser() as chromium:
            page = chromium.new_page(viewport={"width": 1280, "height": 1000})
            run_all(page, address, "explore.ipynb")
            page.wait_for_selector(".wk-explorer .wk-map", timeout=120_000)
            measure(page, given.moves)


if __name__ == "__main__":
    main()
