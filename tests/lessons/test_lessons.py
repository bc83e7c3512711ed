"""Every lesson is executed and rendered; what a lesson has to look like is a lint; its exercises know right from wrong."""

import ast
import html
import json
import re
import shutil
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
import torch

from wakd_kit import fingerprints
from wakd_kit.averaging import Curves, choose, strategies
from wakd_kit.lessons import recordings as runs
from wakd_kit.lessons.exercises import judged, known
from wakd_kit.lessons.recordings import recorded
from wakd_kit.models.tap import Output
from wakd_kit.names import UnknownName
from wakd_kit.objectives import combine, objectives
from wakd_kit.reporting.formulas import MATH, formula_svg, with_formulas
from wakd_kit.reporting.render import render

from ..notebooks import execute

ROOT = Path(__file__).parent.parent.parent
LESSONS = sorted((ROOT / "notebooks" / "lessons").glob("*.ipynb"))
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def cells_of(path: Path) -> list[dict]:
    return [cell | {"source": "".join(cell["source"])} for cell in json.loads(path.read_text())["cells"]]


def is_student(cell: dict) -> bool:
    return "student" in cell["metadata"].get("tags", [])


def exercises_of(path: Path) -> list[str]:
    return re.findall(r'check\("([\d.]+)"', "".join(c["source"] for c in cells_of(path)))


# ---- lint


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_lesson_looks_like_one(path):
    cells = cells_of(path)
    words = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    (title,) = re.findall(r"^# (.*)", words, re.M)
    assert title.endswith("?") and cells[0]["source"].startswith(f"# {title}"), "one title, a question, at the top"
    assert re.search(r"about \d+ seconds", cells[0]["source"]), "the first cell names the run time"
    anchors = {
        re.sub(r"[^\w ]", "", name.lower()).replace(" ", "-") for name in re.findall(r"^### (.*)", GLOSSARY, re.M)
    }
    linked = re.findall(r"\(\.\./\.\./docs/glossary\.md#([\w-]+)\)", cells[0]["source"])
    assert linked and {*linked} <= anchors, f"not in the glossary: {sorted({*linked} - anchors)}"
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    for cell in code:
        defines = any(
            isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)
            for node in ast.walk(ast.parse(cell["source"]))
        )
        assert not defines or is_student(cell), "definitions stand in the package, or in a cell marked as the student's"
        assert is_student(cell) == cell["source"].startswith("# Your turn"), "marked for the eye and for the test alike"
        assert all(len(line) <= 100 for line in cell["source"].splitlines()), "lines that JupyterLab shows whole"
        assert "#D55E00" not in cell["source"], "the explorer's for what a reader moves; what is no average is ink"
    for name in exercises_of(path):
        assert known().get(name).solution not in "".join(cell["source"] for cell in cells)


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_links_of_a_lesson_lead_somewhere(path):
    words = "".join(cell["source"] for cell in cells_of(path) if cell["cell_type"] == "markdown")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", words):
        assert (path.parent / link).is_file(), link


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_figure_comes_after_formula_and_expectation_and_before_a_sentence(path):
    cells, figures = cells_of(path), 0
    for before, cell in zip(cells, cells[1:]):
        if cell["cell_type"] == "code" and re.search(r"\bshow\(", cell["source"]):
            figures += 1
            assert MATH.search(before["source"]) and "**Expect.**" in before["source"]
            assert cell["source"].rindex("show_text(") > cell["source"].rindex("show(")
    assert figures


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_lesson_ends_with_three_exercises_and_an_answer(path):
    cells, number = cells_of(path), path.stem[:2]
    assert exercises_of(path) == [f"{number}.{i}" for i in (1, 2, 3)]
    assert cells[-2]["source"] == "## Answer" and "show_text(" in cells[-1]["source"] and "{" in cells[-1]["source"]
    words = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert re.findall(r"^## (.*)", words, re.M)[-2:] == ["Exercises", "Answer"]
    for name in exercises_of(path):
        assert f"**{name}**" in words
    for cell in filter(is_student, cells):
        assert re.search(r"^answer = \.\.\.$", cell["source"], re.M)


def test_every_exercise_is_asked_in_a_lesson():
    assert sorted(known()) == sorted(name for path in LESSONS for name in exercises_of(path))


# ---- executed


@pytest.fixture(scope="module")
def short():
    """The lessons' runs, of 30 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "RECIPE", runs.RECIPE | {"steps": 30, "segment_length": 3, "batchnorm_batches": 2})
        runs.recorded.cache_clear()
        yield
        runs.recorded.cache_clear()


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("runs/settings.py", "] = 0.0", "] = 0.1"),  # defaults
        ("runs/optimiser.py", "loss.backward()", "(2 * loss).backward()"),
        ("evaluation/windows.py", "accuracy", "accuracies"),
        ("objectives/logits.py", "return temperature**2 * divergence", "return divergence"),
    ],
)
def test_runs_of_other_code_or_defaults_are_recorded_beside_them(file, old, new, tmp_path, monkeypatch):
    before = runs.folder()
    place = (
        shutil.copytree(fingerprints.PACKAGE, tmp_path / "wakd_kit", ignore=shutil.ignore_patterns("shipped")) / file
    )
    text = place.read_text(encoding="utf-8")
    assert old in text
    place.write_text(text.replace(old, new), encoding="utf-8")
    cached = [function for function in vars(fingerprints).values() if hasattr(function, "cache_clear")]
    with monkeypatch.context() as edited:
        edited.setattr(fingerprints, "PACKAGE", tmp_path / "wakd_kit")
        for function in cached:
            function.cache_clear()
        after = runs.folder()
    for function in cached:
        function.cache_clear()
    assert after != before == runs.folder()


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_lesson_runs_and_is_a_page(path, short, tmp_path):
    with matplotlib.rc_context(), pytest.warns(UserWarning, match="names no description"):
        done = execute(path, tmp_path / path.name)
    said = "".join(
        output.get("text", "") for cell in nbformat.read(done, as_version=4).cells for output in cell.get("outputs", [])
    )
    assert [name for name in exercises_of(path) if f"{name}: open." in said] == exercises_of(path)
    page = render(done, tmp_path / "page.html", code=True).read_text(encoding="utf-8")
    title = cells_of(path)[0]["source"].splitlines()[0].lstrip("# ")
    assert page.count("<h1>") == 1 and title in page and "<figure>" in page and 'class="code student"' in page
    assert page.count('role="img"') >= 1 and "$" not in re.sub(r"<pre.*?</pre>", "", page, flags=re.S).split("<main")[1]


# ---- exercises: what a student would write, and what is said of it

KL = "import torch.nn.functional as F; answer = lambda s, t, labels=None: F.kl_div((s.logits / 4).log_softmax(1), (t.logits / 4).softmax(1), "
FIVE = "answer = lambda curves: np.isin(np.arange(len(curves)), np.argsort({})[:5]) / 5"
AXES = "def answer(a, b, c):\n    u = (b - a) / np.linalg.norm(b - a)\n    return u, {}"
FIT = (
    "from scipy.special import log_softmax\n"
    "def answer(z, y):\n"
    "    grid = np.geomspace(0.25, 4, 81)\n"
    "    return grid[np.argmin([-log_softmax({}, axis=1)[np.arange(len(y)), y].mean() for t in grid])]"
)
VALLEY = (
    "def answer(losses, r):\n    first = last = losses.argmin()\n    inside = losses / losses.min() - 1 <= r\n"
    "    while first and inside[first - 1]:\n        first -= 1\n"
    "    while last + 1 < len(losses) and inside[last + 1]:\n        last += 1\n    return first, last"
)
WALK = "def answer(losses, r):\n    inside = np.flatnonzero(losses <= (1 + r) * losses.min())\n    return inside[0], inside[-1]"
LONGEST = (
    "def answer(losses, r):\n    runs = [[]]\n    for i, inside in enumerate(losses <= (1 + r) * losses.min()):\n"
    "        runs[-1].append(i) if inside else runs.append([])\n    best = max(runs, key=len)\n    return best[0], best[-1]"
)
ECE = "answer = lambda c, k, n: np.nanmean([abs((k - c)[np.minimum((c * n).astype(int), n - 1) == b].mean()) for b in range(n)])"
GENERATIONS = (
    "def answer(d, penalty, alpha, k):\n    a = b = d / (d + penalty)\n"
    "    for _ in range({}):\n        b = a * ({})\n    return b"
)
RIDGE = "answer = lambda f, t, p: np.linalg.solve({}, {})"
WRONG = {
    "07.1": [
        (GENERATIONS.format("k", "alpha + (1 - alpha) * b"), "too many"),
        (GENERATIONS.format("k - 1", "b"), "share of the labels is missing"),
        (GENERATIONS.format("k - 1", "(1 - alpha) + alpha * b"), "other way round"),
        ("answer = lambda d, p, alpha, k: d / (d + p)", "apply the recursion"),
    ],
    "07.2": [("answer = 0.025", "do not multiply"), ("answer = 0.1", "too small"), ("answer = 'none'", "one number")],
    "07.3": [
        ("answer = lambda g, h, y: ((y - g) @ (h - g)) / ((g - h) @ (g - h))", "share of h"),
        ("answer = lambda g, h, y: ((y - h) @ (g - h)) / np.linalg.norm(g - h)", "not by its length"),
        ("answer = lambda g, h, y: 0.0", "derivative"),
    ],
    "08.1": [
        ("answer = (1 / (1 + np.arange(60)))[8:].sum()", "whole tail"),
        ("answer = 8 / 200 * (1 / (1 + np.arange(60))).sum()", "sum from j = s"),
        ("answer = 8 / 200 * (1 / (1 + np.arange(60)) ** 0.5)[8:].sum()", "squared"),
        ("answer = 1.0", "too large"),
        ("answer = 'all'", "one number"),
    ],
    "08.2": [("answer = 'teacher'", "beyond the student's 8"), ("answer = 'both'", "choose one of")],
    "08.3": [
        (RIDGE.format("f.T @ f", "f.T @ t"), "least squares"),
        (RIDGE.format("f.T @ f + p", "f.T @ t"), "diagonal"),
        (RIDGE.format("f.T @ f / len(t) + p * np.eye(3)", "f.T @ t / len(t)"), "averaged over inputs"),
        ("answer = lambda f, t, p: f.T @ t", "coefficients at 0"),
    ],
    "04.1": [
        ("answer = (0, 60)", "ends while accuracy still rises"),
        ("answer = (0, 300)", "knew less"),
        ("answer = (150, 240)", "leaves out"),
        ("answer = (299, 300)", "cannot tell"),
        ("answer = (300, 180)", "give two steps"),
        ("answer = (0.6, 1.0)", "whole numbers"),
    ],
    "04.2": [
        (LONGEST, "the one that the lowest loss lies in"),
        (VALLEY.replace("losses / losses.min() - 1", "losses - losses.min()"), "(1 + r) times the lowest"),
        (VALLEY.replace("last + 1 < len(losses) and ", ""), "stopped the check"),
        (WALK, "walk from the lowest"),
        ("answer = lambda losses, r: (3, 7)", "slices"),
        ("answer = (3, 6)", "give the function"),
    ],
    "04.3": [
        ("answer = 100.0", "too large"),
        ("answer = (1, 2)", "one number"),
        ("answer = 0.0434", "fraction"),
        ("answer = 0.0367", "fraction"),
        ("answer = 3.9", "too large"),  # than the nearer of two right ones
        ("answer = 4.2", "too small"),
        ("answer = 'much'", "one number"),
    ],
    "05.1": [
        ("answer = 0", "falls from 2.0"),
        ("answer = 0.2", "from the dip"),
        ("answer = 0.9", "lower end"),
        ("answer = 2", "too large"),
        ("answer = 'high'", "one number"),
    ],
    "05.2": [
        ("answer = lambda b, s: -b * s**2 / 2", "positive number"),
        ("answer = lambda b, s: b * s**2", "not their sum"),
        ("answer = lambda b, s: b * s", "both ends"),
        ("answer = lambda b, s: 2 * b * s", "too small"),
    ],
    "05.3": [
        ("answer = lambda a, b, c: (b - a, c - a)", "divide by it"),
        (AXES.format("c - a"), "right angle"),
        (AXES.format("(c - a) - ((c - a) @ u) * u"), "v at 2"),
    ],
    "06.1": [
        ("answer = lambda c, k, n: abs(c.mean() - k.mean())", "bin by bin"),
        (ECE, "weigh the same"),
        (ECE.replace("nanmean", "mean"), "empty bin"),
        ("answer = lambda c, k, n: 0.5", "too large"),
        (
            "edges = lambda n: zip(np.arange(n) / n, np.arange(1, n + 1) / n)\n"
            "answer = lambda c, k, n: sum(abs((k - c)[(lo <= c) & (c < hi)].sum()) for lo, hi in edges(n)) / len(c)",
            "exactly 1 in the last bin",
        ),
        (
            "answer = lambda c, k, n: sum(abs((k - c)[np.digitize(c, np.linspace(0, 1, n + 1)) == b].sum()) for b in range(n + 2)) / len(c)",
            "exactly 1 in the last bin",
        ),
    ],
    "06.2": [
        (FIT.format("z * t"), "its inverse"),
        ("answer = lambda z, y: np.geomspace(0.25, 4, 81)[0]", "end of the grid"),
        ("answer = lambda z, y: 1.0", "too small"),
    ],
    "06.3": [
        ("answer = (0.5, True)", "useless"),
        ("answer = (1.0, False)", "too large"),
        ("answer = 0.5", "two things"),
        ("answer = (0.5, None)", "True or False"),
    ],
    "02.1": [
        ("answer = 20", "each time a teacher"),
        ("answer = 40", "would tell"),
        ("answer = 15", "trained anew"),
        ("answer = 44", "old teacher"),
        ("answer = [60]", "one number"),
    ],
    "02.2": [
        ("answer = 0.01635", "fraction"),
        ("answer = 100 * 0.24 / 898", "take its root"),
        ("answer = 2.0", "too large"),
    ],
    "02.3": [
        ("answer = 0", "before the mean"),
        ("answer = 0.037", "fraction"),
        ("answer = 64", "above 60"),
        ("answer = np.int64(64)", "above 60"),
        ("answer = 100 * (np.random.default_rng(0).binomial(898, 0.6, (2000, 55)).max() / 898 - 0.6)", "all 2000"),
        ("answer = 2.0", "too small"),
    ],
    "09.1": [
        ("answer = (4.5 - 3.05, 4.5 + 3.05)", "normal distribution"),
        ("answer = (4.5 - 4.288, 4.5 + 4.288)", "ddof=1"),
        ("answer = (4.5 - 4.316, 4.5 + 4.316)", "n - 1 degrees of freedom"),
        ("answer = (4.5 - 9.903, 4.5 + 9.903)", "root of n"),
        ("answer = 4.5", "two numbers"),
        ("answer = (0, 9)", "the interval at 0"),
    ],
    "09.2": [("answer = 80", "half the width"), ("answer = 1000", "too large")],
    "09.3": [
        ("answer = lambda p: np.minimum(1, len(p) * p)", "Bonferroni"),
        ("answer = lambda p: np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1))", "order that they came in"),
        ("answer = lambda p: p * (len(p) - np.argsort(np.argsort(p)))", "maximum.accumulate"),
        ("answer = lambda p: p", "too small"),
        (
            "def answer(p):\n    order = np.argsort(p)\n    q = np.empty(len(p))\n"
            "    q[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))\n    return q",
            "at most 1",
        ),
    ],
    "00.1": [
        ("answer = lambda path, n: path[-n:].mean()", "axis=0"),
        ("answer = lambda path, n: path[:n].mean(axis=0)", "first n iterates"),
        ("answer = lambda path, n: path.mean(axis=0)", "whatever n is"),
        ("answer = lambda path, n: path[n + 1 :].mean(axis=0)", "the average of a path"),
        ("answer = 3", "give the function itself"),
        ("answer = lambda path, n: None", "is its return missing?"),
        ("answer = None", "which is nothing"),
        ("answer = lambda path, n: path.means", "AttributeError"),
    ],
    "00.2": [
        ("answer = np.int64(10)", "neighbours are alike"),
        ("answer = 400", "too large"),
        ("answer = '30'", "one number"),
    ],
    "00.3": [("answer = 0", "not convex"), ("answer = 1.0", "too large")],
    "01.1": [
        ("answer = lambda z, t: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)", "T = 1"),
        ("answer = lambda z, t: np.exp(z * t) / np.exp(z * t).sum(axis=1, keepdims=True)", "do not multiply"),
        ("answer = lambda z, t: np.exp(z / t) / np.exp(z / t).sum()", "keepdims"),
        ("answer = lambda z, t: np.exp(z / t) / np.exp(z / t).sum(axis=1, keepdims=True)", "subtract the largest"),
        (
            "def answer(z, t):\n    p = np.exp((z - z.max()) / t)\n    return p / p.sum(axis=1, keepdims=True)",
            "of each row",
        ),
        ("answer = 1", "give the function itself"),
    ],
    "01.2": [("answer = 4", "T enters twice"), ("answer = 1 / 16", "has to be larger"), ("answer = 8", "too small")],
    "01.3": [
        (KL + "reduction='batchmean')", "T squared is missing"),
        (KL + ") * 16", "averaged over classes"),
        (KL + ")", "batchmean"),
        (KL + "reduction='sum') * 16", "summed over the batch"),
        (
            KL.replace("lambda s, t,", "lambda t, s,") + "reduction='batchmean') * 16",
            "from the student",
        ),
        ("answer = lambda s, t, labels=None: 1.0", "one loss"),
        ("answer = lambda s, t, labels=None: (s.logits - t.logits).detach().square().mean()", "no gradient"),
        ("answer = lambda s, t, labels=None: (s.logits - t.logits).square().mean()", "nats on this batch"),
    ],
    "03.1": [
        ("answer = lambda n, k: np.r_[np.zeros(len(n) - k), np.ones(k)] / k", "weigh by iterates"),
        ("answer = lambda n, k: n[-k:] / n[-k:].sum()", "not left out"),
        ("answer = lambda n, k: np.r_[np.zeros(len(n) - k), np.ones(k)]", "sum to 1"),
    ],
    "03.2": [("answer = (5, 4)", "other way round"), ("answer = (5, 5)", "then square"), ("answer = 4", "two numbers")],
    "03.3": [
        (FIVE.format("-curves.val_loss"), "sort the other way"),
        (FIVE.format("curves.train_loss"), "take val_loss"),
        (FIVE.format("-curves.val_accuracy"), "another curve; take val_loss"),
        (FIVE.format("curves.val_loss"), "three times as many iterates"),
        ("answer = lambda curves: 1.0 * (curves.val_loss < 5)", "sum to 1"),
        ("answer = lambda curves: np.ones(len(curves)) / len(curves)", "too large"),
    ],
}


def test_every_exercise_has_wrong_answers_to_try():
    assert {*WRONG} == {*known()}


@pytest.mark.parametrize("name, wrong, said", [(name, *pair) for name, pairs in WRONG.items() for pair in pairs])
def test_a_wrong_answer_is_told_what_is_wrong(name, wrong, said, short):
    found = judged(name, assigned(wrong))
    assert found.startswith("not yet: ") and said in found and len(found) > len("not yet: ") + 20


@pytest.mark.parametrize("name", sorted(known()))
def test_the_solution_is_right_and_no_answer_is_open(name, short):
    assert judged(name, assigned(known().get(name).solution)) == "right."
    assert judged(name, ...).startswith("open.")


@pytest.mark.parametrize("name", sorted({*known()} - {"08.2"}))  # whose answer is a word
def test_nan_is_never_right(name, short):
    def spoiled(right):
        return np.nan * (right if isinstance(right, torch.Tensor) else np.asarray(right, dtype=float))

    right = assigned(known().get(name).solution)
    found = judged(name, (lambda *given: spoiled(right(*given))) if callable(right) else spoiled(right))
    assert found.startswith("not yet: ") and "too small" not in found and "stopped" not in found


@pytest.mark.parametrize(
    "name, right",
    [
        ("04.3", "answer = 3.67"),  # two windows tie on source validation
        ("04.3", "answer = 4.34"),
        ("04.2", VALLEY),
        ("06.3", "answer = [0.5, False]"),
        ("09.2", "answer = 284"),  # with t in place of the root alone
        ("09.2", "answer = 320"),
        ("00.2", "answer = 29"),  # with the sum in place of its limit
        ("08.1", "answer = 0.078"),
        ("02.2", "answer = 1.6"),
        ("04.1", "answer = (190, 300)"),
    ],
)
def test_another_way_to_be_right_is_right(name, right):
    assert judged(name, assigned(right)) == "right."


def test_a_solution_that_is_declared_is_what_its_lesson_says(monkeypatch):
    for registry, table in ((strategies, "_entries"), (objectives, "_entries"), (objectives, "_about")):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    own = assigned(known().get("03.3").solution)
    strategies.register(own, name="five_lowest")
    curves = Curves([5, 5, 5, 5, 15, 5], val_loss=[6, 5, 4, 3, 2, 1.0])
    chosen = choose(curves, ["five_lowest"])["five_lowest"]
    assert np.allclose(chosen, own(curves)) and chosen.strategy == "five_lowest" and chosen.chosen_by
    mine = assigned(known().get("01.3").solution)
    objectives.declare(name="my_kd", kind="logits", needs="teacher", source="ours")(mine)
    pair = [Output(logits, pooled=logits) for logits in torch.randn(2, 6, 5)]
    value = combine("my_kd")(*pair, None)[0]
    assert value.item() == pytest.approx(combine({"name": "kd", "temperature": 4.0})(*pair, None)[0].item(), rel=1e-5)


def assigned(code: str) -> object:
    namespace = {"np": np}
    exec(code, namespace)
    return namespace["answer"]


def test_an_unknown_exercise_is_named():
    with pytest.raises(KeyError, match="Unknown exercise"):
        judged("00.9", 1)
    with pytest.raises(UnknownName, match=r"^Unknown run 'KDD'\. Did you mean 'KD'"):
        recorded("KDD")


# ---- formulas


def test_formulas_become_shapes_and_code_stays():
    assert (
        with_formulas("costs `$a$` and ```\n$$b$$\n``` and 5 $ or 6 $")
        == "costs `$a$` and ```\n$$b$$\n``` and 5 $ or 6 $"
    )
    made = with_formulas("so $a_1$ and\n\n$$\\frac{1}{2}$$\n")
    assert made.count("<svg") == 2 and made.count('<div class="formula">') == 1 and 'aria-label="\\frac{1}{2}"' in made
    assert formula_svg("x", 10).count("NaN") == 0
    with pytest.raises(ValueError):
        formula_svg("\\begin{array}")
    unread = with_formulas("so $\\begin{aligned} a_i * b_i < c \\end{aligned}$")
    assert unread.startswith("so <code>") and html.unescape(unread).endswith(
        "<code>\\begin{aligned} a_i * b_i < c \\end{aligned}</code>"
    )
    assert not {"_", "*", "\\"} & {*unread}, "which Markdown would read"
