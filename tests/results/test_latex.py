"""Tables that LaTeX reads: escaped, aligned, with rules; compiled where there is a LaTeX."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from wakd_kit.results import latex

TABLE = pd.DataFrame(
    {
        "student": ["teacher", "teacher", "KD & co_1", "KD & co_1"],
        "strategy": ["last", "WAKD", "last", "WAKD"],
        "art_painting": [61.04, 63.5, 55.0, np.nan],
        "mean": [70.04, 70.06, -0.04, 80.0],
        "n": [8, 8, 8, 7],
        "95 % t": ["[-0.3, +1.2]", "–", "[+0.1, +0.2]", "<0.001"],
        "note": ["steps 30-60", "a ± b", "T = 5", "50 %"],
    }
)
CAPTION = "Accuracy in % on the domain left out; mean_of $x$."


def rows(text: str) -> list[list[str]]:
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0]
    return [[cell.strip() for cell in line.removesuffix("\\\\").split(" & ")] for line in body.strip().splitlines()]


def test_a_table_has_booktabs_rules_a_caption_and_a_label():
    text = latex.booktabs(TABLE, caption=CAPTION, label="tab:summary")
    assert text.startswith("\\begin{table}[tb]\n\\centering\n") and text.rstrip().endswith("\\end{table}")
    assert [text.count(rule) for rule in ("\\toprule", "\\midrule", "\\bottomrule", "\\hline")] == [1, 1, 1, 0]
    assert "\\caption{Accuracy in \\% on the domain left out; mean\\_of \\$x\\$.}" in text
    assert "\\label{tab:summary}" in text
    assert "\\begin{tabular}{llrrrrl}" in text, "numbers and intervals align on the right"
    assert "student & strategy & art painting & mean & n & 95 \\% t & note \\\\" in text


def test_cells_are_escaped_rounded_and_a_dash_for_nothing():
    found = rows(latex.booktabs(TABLE, caption="", label="t"))
    assert found[0] == ["teacher", "last", "61.0", "70.0", "8", "[$-$0.3, +1.2]", "steps 30-60"]
    assert found[1][-2:] == ["--", "a $\\pm$ b"]
    assert found[2][:4] == ["KD \\& co\\_1", "last", "55.0", "0.0"], "no minus before a zero"
    assert found[3][2:] == ["--", "80.0", "7", "$<$0.001", "50 \\%"]


def test_the_best_of_each_student_is_bold_by_its_value_and_not_by_its_digits():
    text = latex.booktabs(TABLE, caption="", label="t", best=["art_painting", "mean"])
    assert "last & 61.0 & 70.0 " in text and "WAKD & \\textbf{63.5} & \\textbf{70.1} " in text
    assert "last & \\textbf{55.0} & 0.0 " in text and "-- & \\textbf{80.0}" in text
    assert text.count("textbf") == 4
    two = latex.booktabs(TABLE.assign(mean=1.0), caption="", label="t", best=["mean"])
    assert two.count("textbf{1.0}") == 4, "ties share it"
    alike = pd.DataFrame({"student": ["A", "A"], "art_painting": [1.0, 2.0], "art painting": [4.0, 3.0]})
    text = latex.booktabs(alike, caption="", label="t", best=["art_painting", "art painting"])
    assert "A & 1.0 & \\textbf{4.0}" in text and "A & \\textbf{2.0} & 3.0" in text
    close = latex.booktabs(TABLE.assign(mean=[1.04, 1.01] * (len(TABLE) // 2)), caption="", label="t", best=["mean"])
    assert close.count("textbf{1.0}") == len(TABLE), "and so do those that print alike"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b", r"a\_b"),
        ("50 % & #1 {x} $", r"50 \% \& \#1 \{x\} \$"),
        ("a\\b~c^d", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"),
        ("-1.5", "$-$1.5"),
        ("KD-2 steps 30-60", "KD-2 steps 30-60"),
        ("last (-1.0 [-4.0, 2])", "last ($-$1.0 [$-$4.0, 2])"),
        ("2 × 3 – 4", r"2 $\times$ 3 -- 4"),
    ],
)
def test_text_is_printed_as_it_is_read(text, escaped):
    assert latex.escape(text) == escaped


def test_tables_are_saved_by_name_and_an_empty_one_takes_its_old_file_away(tmp_path):
    captions = {"summary": "One", "churn": "Two"}
    latex.save(tmp_path / "new", captions, best={"summary": ["mean"]}, summary=TABLE, churn=TABLE)
    assert {f.name for f in (tmp_path / "new").iterdir()} == {"summary.tex", "churn.tex"}
    summary, churn = ((tmp_path / "new" / f"{n}.tex").read_text(encoding="utf-8") for n in ("summary", "churn"))
    assert "\\caption{One}" in summary and "\\label{tab:churn}" in churn
    assert "textbf" in summary and "textbf" not in churn
    latex.save(tmp_path / "new", captions, summary=TABLE, churn=TABLE.iloc[:0])
    assert {f.name for f in (tmp_path / "new").iterdir()} == {"summary.tex"}


def test_latex_compiles_it(tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex on this machine")
    table = latex.booktabs(TABLE, caption=CAPTION, label="tab:t", best=["mean"])
    text = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{table}\\end{{document}}"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_markdown_has_a_head_a_rule_and_a_row_each():
    table = pd.DataFrame({"student": ["KD", "C|E"], "gain": ["+1.0", "–"]})
    assert latex.markdown(table) == "| student | gain |\n| --- | --- |\n| KD | +1.0 |\n| C\\|E | – |"


def test_a_compact_table_has_a_rule_between_students_and_its_caption_as_a_comment():
    summary = pd.DataFrame(
        {
            "student": ["CE", "CE", "KD"],
            "strategy": ["last", "WAKD", "last"],
            "ink": [70.04, 70.0, np.nan],
            "mean": [70.04, 70.0, np.nan],
            "sd": [1.26, np.nan, np.nan],
            "se": [0.5, 0.5, np.nan],
            "n": [2, 1, 0],
            "missing": [0, 0, 2],
        }
    )
    named = summary.replace({"student": {"CE": "student CE"}})
    assert latex.compact(named, caption="Accuracy", label="tab:b").count("student CE") == 1
    text = latex.compact(summary, caption="Accuracy in %: mean over seeds", label="tab:a-compact")
    assert text.startswith("% Accuracy in \\%: mean over seeds\n") and r"\caption{Accuracy in \%.}" in text
    rows = text.split(r"\midrule")
    assert len(rows) == 3 and r"CE & last & \textbf{70.0} & 70.0 $\pm$ 1.3 \\" in rows[1]
    assert (
        r" & WAKD & \textbf{70.0} & 70.0 \\" in rows[1]
        and "\nCE & WAKD" not in rows[1]
        and "KD & last & -- & -- " in rows[2]
    )
