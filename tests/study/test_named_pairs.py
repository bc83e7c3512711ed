"""Studies whose pairs are named beforehand: planned as they are shipped, and run whole with two steps a training."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import wakd_kit as wk
from wakd_kit.names import ParameterError
from wakd_kit.reporting import execute as notebook
from wakd_kit.reporting.parameters import describe, make
from wakd_kit.results.differences import collect
from wakd_kit.results.merged import MERGED, answer, contrasts, levels, merged, verdicts
from wakd_kit.study.places import REPORTS, StudyProblem
from wakd_kit.study.run import planned, run_study
from wakd_kit.study.specification import load_study

from .. import notebooks
from ..conftest import patterns

ONE = "{students: [KD, CE], rules: [ties], averages: [WAKD]}"
MERGE = {"students": ["a", "b"], "rules": ["mean"], "averages": ["last"]}
SHIPPED = ("annealed_digits", "space_and_time")


def rows(**of):
    """Scores of one target with three seeds, {"student label": accuracies}."""
    return pd.DataFrame(
        [
            {
                "student": side.split()[0],
                "strategy": side.split()[1],
                "target": "t",
                "seed": seed,
                "role": role,
                "accuracy": value,
            }
            for side, values in of.items()
            for seed, value in enumerate(values)
            for role in ("target", "source")
        ]
    )


def test_pairs_are_compared_as_named_and_everything_merged_with_one():
    scores = rows(
        **{
            "a last": (0.5, 0.6, 0.7),
            "b last": (0.4, 0.45, 0.5),
            f"{MERGED} mean": (0.6, 0.6, 0.6),
            f"{MERGED} ties": (0.1, 0.1, 0.1),
        }
    )
    table = contrasts(scores, [[["a", "last"], ["b", "last"]]], ["a", "last"])
    assert table["label"].tolist() == ["a last - b last", f"{MERGED} mean - a last", f"{MERGED} ties - a last"]
    assert table["mean"].tolist() == pytest.approx([15, 0, -50])
    said = verdicts(table)
    assert len(said) == 4 and "+15.0 points" in said[0] and said[-1].startswith("With Holm's correction for all 3, ")
    shown = levels(scores, [[["a", "last"], ["b", "last"]]], ["a", "last"])
    assert shown["student"].tolist() == ["a", "b", MERGED, MERGED] and shown["unseen"].tolist() == pytest.approx(
        [60, 45, 60, 10]
    )
    with pytest.raises(ValueError, match=r"No scores of b lats; there are a last, b last"):
        levels(scores, [[["a", "last"], ["b", "lats"]]])
    again = contrasts(scores, [[[MERGED, "mean"], ["a", "last"]]], ["a", "last"])
    assert again["label"].tolist() == [f"{MERGED} mean - a last", f"{MERGED} ties - a last"], (
        "what is named twice is one"
    )
    assert verdicts(contrasts(scores, [])) == ["No difference was named, and nothing was merged."]


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"pairs": [["a", "b"]]}, r"pairs are of two, each \[student, label of an average\]; got \['a', 'b'\]"),
        ({"pairs": [[["a", "last"], ["b", "last"]]] * 2}, "is listed twice"),
        ({"merge": {"students": ["a"]}}, "merge takes students, rules and averages, each a list; got .*students"),
        ({"merge": {**MERGE, "rules": "ties"}}, "each a list; got .*'rules': 'ties'"),
        ({"merge": {**MERGE, "students": []}}, "each a list; got .*'students': \\[\\]"),
        ({"merge": {**MERGE, "students": ["a", "a"]}}, "merge: students are names, each of them once; got"),
        ({"merge": {**MERGE, "averages": [["last"]]}}, "merge: averages are names, each of them once; got"),
        ({"merge": {**MERGE, "rules": ["tiess"]}}, "merge: Unknown rule of merging 'tiess'. Did you mean 'ties'?"),
        ({"merge": {**MERGE, "rules": [{"name": "ties", "densty": 1}]}}, "merge: Unknown setting of ties 'densty'"),
        ({"merge": {**MERGE, "rules": [{"name": "ties", "density": 2}]}}, "merge: density is the share"),
        ({"merge": {**MERGE, "rules": [7]}}, "merge: A rule of merging is a name or a dict"),
        ({"merge": {**MERGE, "rules": ["mean", "mean"]}}, "merge: Two rules of merging are called 'mean'"),
        ({"against": ["a", "b"]}, "against is .* beside something merged"),
    ],
)
def test_what_names_no_pair_is_a_sentence(settings, sentence):
    with pytest.raises(ParameterError, match=sentence):
        make(describe("07_named_pairs"), settings)


def test_an_answer_is_the_verdict_on_pairs_that_were_named(tmp_path):
    table = contrasts(rows(**{"a last": (0.5, 0.6, 0.7), "b last": (0.4, 0.45, 0.5)}), [[["a", "last"], ["b", "last"]]])
    table.to_csv(tmp_path / "named_pairs.csv", index=False)
    said = answer(pd.DataFrame(), ["a last - b last"], "last", tmp_path)
    assert said == verdicts(table)[0] and said.startswith("a last - b last: +15.0 points")
    with pytest.raises(StudyProblem, match="answer: Unknown pair 'CE last - KD'"):
        file = tmp_path / "mine.yaml"
        file.write_text("extends: annealed_digits\nanswer: [CE last - KD]\n")
        load_study(file)
    for pairs in ("null", "[[[CE, last]]]", "[[[CE, last], [KD, last]], [[CE, last], [KD, last]]]"):
        file.write_text(
            f"extends: quickstart\nanswer: [CE last - KD last]\nalso: {{07_named_pairs: {{pairs: {pairs}}}}}\n"
        )
        with pytest.raises(StudyProblem, match="also: 07_named_pairs: pairs"):
            load_study(file)
    merge = (
        "merge: {students: [CE, KD], rules: [mean, {name: ties, label: TIES}], averages: [WAKD]}, against: [KD, last]"
    )
    text = f"extends: quickstart\nanswer: [ANSWER]\nalso: {{07_named_pairs: {{{merge}}}}}\n"
    file.write_text(text.replace("ANSWER", "merged TIES of WAKD - KD last"))
    assert load_study(file).answer == ["merged TIES of WAKD - KD last"]
    file.write_text(text.replace("ANSWER", "merged ties of WAKD - KD last"))
    with pytest.raises(StudyProblem, match="Unknown pair 'merged ties of WAKD - KD last'"):
        load_study(file)


@pytest.mark.parametrize("name, unknown", [("annealed_digits", "student 'KDD'"), ("space_and_time", "source 4")])
def test_a_pair_or_a_source_that_is_not_there_is_said_before_anything_is_trained(name, unknown, tmp_path):
    text = (REPORTS / f"{name}.yaml").read_text().replace("[KD, WAKD]", "[KDD, WAKD]").replace("only: [3]", "only: [4]")
    text = text.replace("KD WAKD -", "KDD WAKD -")
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(StudyProblem, match=unknown):
        planned(tmp_path / "study.yaml", out=tmp_path / "report", runs=tmp_path / "runs")


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ("merge: {students: [KDX, CE], rules: [ties], averages: [WAKD]}", "merge: Unknown student 'KDX'. Did you mean"),
        ("merge: {students: [KD, CE], rules: [tiess], averages: [WAKD]}", "merge: Unknown rule of merging 'tiess'."),
        ("merge: {students: [KD, CE], rules: [ties], averages: [WAKKD]}", "merge: Unknown label 'WAKKD'. Did you mean"),
        ("merge: {students: KD, rules: ties, averages: wakd}", "merge takes students, rules and averages, each a list"),
        (f"merge: {ONE}, against: [KDX, last]", "against: Unknown student 'KDX'. Did you mean 'KD'?"),
        (f"merge: {ONE}, against: [KD, lastt]", "against: Unknown label 'lastt'. Did you mean 'last'?"),
        (f"merge: {ONE}, pairs: [[[merged, tie of WAKD], [KD, last]]]", "pairs: Unknown label 'tie of WAKD'. Did you"),
        ("pairs: [[[merged, ties of WAKD], [KD, last]]]", "pairs: Unknown student 'merged'."),
    ],
)
def test_what_is_merged_and_compared_is_checked_before_anything_is_trained(settings, sentence, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: quickstart\nalso: {{07_named_pairs: {{{settings}}}}}\n")
    with pytest.raises(StudyProblem, match=f"07_named_pairs: {re.escape(sentence)}"):
        planned(file, out=tmp_path / "report", runs=tmp_path / "runs")


@pytest.mark.parametrize(
    "settings",
    [
        "students: {KD: {}}, also: {07_named_pairs: {pairs: [[[teacher, WAKD], [KD, WAKD]]]}}",
        f"targets: [sketch], seeds: [0], also: {{07_named_pairs: {{merge: {ONE}, against: [KD, last]}}}}",
        f"also: {{07_named_pairs: {{merge: {ONE}, pairs: [[[merged, ties of WAKD], [KD, last]]]}}}}",
    ],
)
def test_what_names_its_pairs_needs_no_two_students_or_splits(settings, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"{{extends: quickstart, answer: {{}}, {settings}}}")
    assert planned(tmp_path / "mine.yaml", out=tmp_path / "report", runs=tmp_path / "runs")


@pytest.mark.parametrize("target, whole", [("north", False), (["south", "west"], False), ("north", True)])
def test_what_was_merged_is_read_again_as_it_was_computed(target, whole, tmp_path):
    images = small_images(tmp_path / "images", side=32)
    split = wk.leave_one_out(wk.load_domains(f"folder:{images}", size=32), target, 0)
    split = split.whole() if whole else split
    for name, seed in (("a", 1), ("b", 2)):
        model = wk.build_model("resnet10t_w16", split.classes, seed=0)
        run = wk.train(
            model,
            split,
            steps=2,
            segment_length=1,
            batch_size=8,
            seed=seed,
            save_to=tmp_path / "runs" / name,
            progress=False,
        )
        wk.evaluate(run, wk.choose(run, ["last"]))
    study = collect(tmp_path / "runs")
    asked = {"students": ["a", "b"], "rules": ["mean", {"name": "ties", "density": 0.5}], "averages": ["last"]}
    table = merged(study, **asked)
    assert len(table) == 2 * 4 and sorted(table["domain"]) == sorted([*split.domains] * 2)
    pd.testing.assert_frame_equal(merged(study, **asked), table)
    (file,) = (tmp_path / "runs").glob("a/landscape/merged-*.csv")
    assert all(run.split.held_out is not whole for run in study.runs)
    file.write_text("\n".join(file.read_text().splitlines()[:6]) + "\n")  # killed within the second rule
    pd.testing.assert_frame_equal(merged(study, **asked), table)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SHIPPED, "annealed_pacs", "space_and_time_pacs"])
def test_each_is_planned_as_it_is_shipped(name, tmp_path, monkeypatch):
    study = load_study(name)
    if study.benchmark == "pacs":  # which may not be here; four domains of any images have as many jobs
        images = small_images(tmp_path / "images", side=32)
        values = yaml.safe_load((REPORTS / f"{name}.yaml").read_text())
        blocks = {block: {"model": "resnet10t_w16.px32", "batch_size": 8} for block in ("teacher", "common")}
        values |= {"extends": values["extends"], "benchmark": f"folder:{images}", "image_size": 32}
        values |= {block: values[block] | blocks[block] for block in blocks}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        name = tmp_path / "study.yaml"
    lines = planned(name, out=tmp_path / "report", runs=tmp_path / "runs")
    jobs = 4 * len(study.seeds) * 5 + 3
    assert lines[-1].endswith(f"{jobs} of {jobs} notebooks to do")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_each_runs_whole_with_two_steps(name, tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "execute", lambda *given, env=None, **settings: notebooks.execute(*given, **settings))
    values = yaml.safe_load((REPORTS / f"{name}.yaml").read_text())
    for block in (values["teacher"], values["common"], *values["students"].values()):
        block |= {"steps": 2, "segment_length": 1} if "steps" in block else {}
    for block in (values["teacher"], values["common"]):
        block["batch_size"] = 8
    images = small_images(tmp_path / "images", side=32)
    values |= {"benchmark": f"folder:{images}", "image_size": 32, "targets": ["north"], "seeds": [0, 1]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    folders = {"out": tmp_path / "report", "runs": tmp_path / "runs"}
    run_study(tmp_path / "study.yaml", engine="sequential", cores=1, **folders, say=lambda line: None)
    table = pd.read_csv(tmp_path / "report" / "named_pairs.csv")
    pairs, merge = values["also"]["07_named_pairs"]["pairs"], values["also"]["07_named_pairs"].get("merge")
    merges = len(merge["rules"]) * len(merge["averages"]) if merge else 0
    assert len(table) == len(pairs) + merges and (table["n"] == 2).all() and table["mean"].notna().all()
    page = (tmp_path / "report" / "notebooks" / "07_named_pairs.html").read_text()
    assert "two pairs only; nothing can be said." in page
    if merge:
        ((folder, settings),) = {
            (f.parent.name, f.read_text()) for f in (tmp_path / "runs" / "north-s0").glob("expert 2/settings.json")
        }
        assert folder == "expert 2" and json.loads(settings)["split"]["sources"] == ["south"]
        kept = {f: f.read_bytes() for f in (tmp_path / "runs").glob("*/expert 1/landscape/merged-*.csv")}
        assert len(kept) == 2 * len(merge["averages"])


def small_images(folder, *, side: int):
    """Four domains of two classes, eight images each."""
    for i, domain in enumerate(("north", "east", "south", "west")):
        images, labels = patterns(i, per_class=8, classes=2, side=side)
        for n, (image, label) in enumerate(zip(images, labels)):
            file = folder / domain / "ab"[label] / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(image)).save(file)
    return folder


@pytest.mark.parametrize(
    "gain, margin, said",
    [
        ([0.2, -0.2, 0.1], 1.0, "not distinguishable from no difference; on par, within 1 point either way;"),
        ([0.2, -0.2, 0.1], 0.5, "no difference; not worse by 0.5 points;"),
        ([0.2, -0.2, 0.1], 0.1, "not distinguishable from no difference; better in"),
        ([2.0, 2.1, 1.9], 1.0, "higher on these domains; better in"),
        ([0.3, 0.31, 0.29], 1.0, "higher on these domains; on par, within 1 point either way;"),
        ([-2.0, -2.1, -1.9], 1.0, "lower on these domains; better in"),
        ([0.2, -0.2, 0.1], 0.0, "not distinguishable from no difference; better in"),
    ],
)
def test_a_margin_that_was_named_is_compared_with_the_interval(gain, margin, said):
    rows = [
        {"student": "KD", "strategy": s, "target": t, "seed": 0, "role": "target", "n": 100_000, "accuracy": 0.5 + (s == "WAKD") * g / 100}
        for t, g in zip("abc", gain)
        for s in ("last", "WAKD")
    ]  # fmt: skip
    table = contrasts(pd.DataFrame(rows), [[["KD", "WAKD"], ["KD", "last"]]], margin=margin)
    assert said in verdicts(table)[0]
