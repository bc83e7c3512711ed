"""A study searches its settings: draws that a seed decides, recorded trainings, winners by source validation, fixed for its own seeds."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from wakd_kit.names import ParameterError
from wakd_kit.results import searched as results
from wakd_kit.study import draws
from wakd_kit.study import jobs as job_files
from wakd_kit.study import run as study_run
from wakd_kit.study import status as study_status
from wakd_kit.study.jobs import Place
from wakd_kit.study.run import StudyProblem, load_study, plan, planned, run_study, status
from wakd_kit.study.search import Search, draw, split_seeds

from .test_run import executed, write  # noqa: F401

OVER = {"learning_rate": "10^U(-3,-1)"}
SEARCH = {"draws": 2, "by": "WAKD", "over": OVER}
CE = {"objectives": ["ce"], "teacher": None}
HERE = Place(Path("/report"), Path("/runs"))


# ---- draws


def test_draws_are_decided_by_seed_number_and_name_alone():
    few = Search(over=OVER, draws=3)
    more = Search(over={"weight_decay": "10^U(-6,-2)", **OVER, "batch_size": "2^U(3,5.5)"}, draws=20)
    rates = [draw(few, i)["learning_rate"] for i in range(3)]
    assert rates == [draw(more, i)["learning_rate"] for i in range(3)] and len(set(rates)) == 3
    assert rates != [draw(Search(over=OVER, seed=1), i)["learning_rate"] for i in range(3)]


def test_draws_are_spread_as_they_are_written():
    source = {
        "learning_rate": "10^U(-5,-3.5)",
        "batch_size": "2^U(3, 5.5)",
        "warmup": "U(0,9)",
        "schedule": ["constant", "cosine"],
    }
    drawn = pd.DataFrame([draw(Search(over=source), i) for i in range(400)])
    exponent = np.log10(drawn["learning_rate"])
    assert -5.01 < exponent.min() < -4.98 and -3.52 < exponent.max() < -3.49
    assert np.histogram(exponent, bins=3, range=(-5, -3.5))[0] == pytest.approx([133] * 3, abs=35)
    assert drawn["batch_size"].dtype == int and drawn["batch_size"].between(8, 45).all()
    assert drawn["warmup"].between(0, 9).all() and set(drawn["schedule"]) == {"constant", "cosine"}


def test_who_wants_another_range_draws_from_it_and_leaves_the_others_theirs():
    both = {**OVER, "weight_decay": "10^U(-6,-2)"}
    for_all, own = Search(over=both), Search(over=both, instead={"ViT": {"learning_rate": "10^U(-5,-4)"}})
    for i in range(5):
        mine = draw(own, i, "ViT")
        assert 1e-5 <= mine["learning_rate"] <= 1e-4
        assert mine["weight_decay"] == draw(for_all, i, "ViT")["weight_decay"]
        assert draw(own, i, "CNN") == draw(for_all, i, "CNN") == draw(own, i, "teacher")


def test_split_seeds_are_none_of_the_study_s():
    assert split_seeds(Search(over=OVER, seeds=3), [0, 1]) == [100, 101, 102]
    assert split_seeds(Search(over=OVER, seeds=2), [100, 0, 102]) == [101, 103]


@pytest.mark.parametrize(
    "source",
    [
        "10^U(-5",
        "U(1,1)",
        "U(2,1)",
        "3^U(0,1)",
        0.1,
        [],
        "10^U(a,b)",
        "U(1.2.3,4)",
        None,
        "10^U(300,400)",
        "2^U(-1e999,1)",
        "U(-1e308,1e308)",
    ],
)
def test_what_nothing_can_be_drawn_from_is_a_sentence(source):
    with pytest.raises(ParameterError, match=r"over: learning_rate is drawn from U\(a,b\).*In braces, quote"):
        Search(over={"learning_rate": source})


@pytest.mark.parametrize(
    "search, sentence",
    [
        ({"draws": 2}, "Search needs over."),
        ({"over": {}}, "over names at least one parameter"),
        ({**SEARCH, "draws": 0}, "draws is a whole number >= 1; got 0."),
        ({**SEARCH, "drawss": 3}, "Unknown parameter 'drawss'. Did you mean 'draws'?"),
        ({**SEARCH, "by": "SWADD"}, "search: Unknown label 'SWADD'. Did you mean 'SWAD'?"),
        ({**SEARCH, "students": ["KDD"]}, "search: Unknown student 'KDD'. Did you mean 'KD'?"),
        ({**SEARCH, "like": {"KD": "CE"}}, "search: Unknown student 'CE'."),
        (
            {**SEARCH, "like": {"KD": "teacher", "teacher": "KD"}},
            "like: KD takes the settings that won of teacher, which is not",
        ),
        (
            {**SEARCH, "students": ["KD"], "like": {"KD": "teacher"}},
            "like: KD takes the settings that won of teacher, which is not",
        ),
        ({**SEARCH, "over": {"seed": [1, 2]}}, "search: over: seed cannot be drawn."),
        ({**SEARCH, "instead": {"KD": {"target": ["a"]}}}, "search: instead: KD: target cannot be drawn."),
        (
            {**SEARCH, "instead": {"KDD": {}}},
            "search: instead: Unknown student that is searched 'KDD'. Did you mean 'KD'?",
        ),
        (
            {**SEARCH, "instead": {"KD": {}}, "like": {"KD": "teacher"}},
            "search: instead: Unknown student that is searched 'KD'",
        ),
        (
            {**SEARCH, "instead": {"KD": "U(0,1)"}},
            "search: instead: KD takes {parameter: where it is drawn from}; got 'U(0,1)'.",
        ),
        (
            {**SEARCH, "instead": {"KD": {"learning_rate": 1}}},
            "search: instead: KD: learning_rate is drawn from U(a,b)",
        ),
        ({**SEARCH, "steps": 3, "instead": {"KD": {"steps": [3]}}}, "steps is drawn, or given for all draws"),
        (
            {**SEARCH, "over": {"learning_rat": "U(0,1)"}},
            "Unknown parameter 'learning_rat'. Did you mean 'learning_rate'?",
        ),
        ({**SEARCH, "over": {"learning_rate": [-1.0]}}, "learning_rate is a positive number; got -1.0."),
        ({**SEARCH, "steps": 3, "over": {"steps": [3, 4]}}, "steps is drawn, or given for all draws"),
    ],
)
def test_a_search_that_cannot_be_is_a_sentence_before_anything_runs(write, search, sentence):  # noqa: F811
    with pytest.raises(StudyProblem) as problem:
        plan(load_study(write(search=search)), HERE)
    assert sentence in str(problem.value)


# ---- what wins


def scores(folder: Path, **accuracy) -> Path:
    """A run's scores: {label: (source accuracies, accuracy on the target)}."""
    rows = []
    for label, (source, target) in accuracy.items():
        rows += [{"strategy": label, "domain": f"d{i}", "role": "source", "accuracy": a} for i, a in enumerate(source)]
        rows += [{"strategy": label, "domain": "t", "role": "target", "accuracy": target}]
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    return folder


def test_the_winner_has_the_highest_mean_over_seeds_and_waits_for_all():
    assert results.winner([[0.8, 0.6], [0.9, 0.6], [0.7, 0.8]]) == 1  # the first of equals
    assert results.winner([[0.8], [None]]) is None
    assert results.winner([[-math.inf], [0.2]]) == results.winner([[math.nan], [0.2]]) == 1
    assert results.winner([[0.9, -math.inf], [-math.inf, -math.inf], [math.nan, 0.9]]) is None, (
        "no draw wins by one seed"
    )


def test_nothing_of_the_unseen_domain_is_read(tmp_path):
    run = scores(tmp_path / "run", last=([0.5, 0.7], 0.1), none=([math.nan, math.nan], math.nan))
    assert results.source_accuracy(run, "last") == pytest.approx(0.6)
    assert results.source_accuracy(run, "none") == -math.inf and results.source_accuracy(run, "swad") is None
    other = scores(tmp_path / "other", last=([0.5, 0.7], 0.99))
    assert results.source_accuracy(other, "last") == results.source_accuracy(run, "last")


def test_what_another_average_would_have_chosen(tmp_path):
    accuracy = {  # draw: (last, WAKD), on two seeds
        0: [(0.6, 0.7), (0.6, 0.7)],
        1: [(0.5, 0.9), (0.5, 0.8)],
        2: [(0.9, 0.1), (0.2, 0.1)],
    }
    draws = []
    for number, of_seeds in accuracy.items():
        for seed, (last, average) in enumerate(of_seeds):
            run = f"search/t-s{seed}/KD-d{number}"
            scores(tmp_path / run, last=([last], 0), WAKD=([average], 0))
            about = {"target": "t", "student": "KD", "draw": number, "settings": {"learning_rate": 10.0**-number}}
            draws.append({**about, "run": run})
    table = results.searched(tmp_path, draws, ["last", "WAKD"])
    assert table["settings"].tolist() == ["learning_rate 1.0", "learning_rate 0.1"]
    assert table["source"].tolist() == pytest.approx([60, 85])
    row = results.winners(table, "WAKD").iloc[0]
    assert (row["fixed"], row["by last"]) == ("learning_rate 0.1", "learning_rate 1.0")
    assert results.otherwise(table, "WAKD") == ["last would have chosen otherwise in 1 of 1 searches."]
    for label in ("last", "WAKD"):  # of one draw with a score there is no choice
        assert results.otherwise(table.assign(draws=np.where(table["strategy"] == label, 1, 3)), "WAKD") == []
    (tmp_path / draws[0]["run"] / "scores.csv").unlink()
    assert results.searched(tmp_path, draws, ["last"])["settings"].tolist() == [""]  # not known without one of them


# ---- jobs


def names(jobs, **have):
    return [job.name for job in jobs if all(getattr(job, n) == v for n, v in have.items())]


def test_a_split_waits_for_what_is_searched_for_its_target(write):  # noqa: F811
    students = {"CE": CE, "KD": {}, "CE+KD": {"objectives": ["ce", "kd"]}}
    file = write(students=students, targets=["north"], search={**SEARCH, "like": {"CE+KD": "KD"}, "steps": 4})
    jobs = plan(load_study(file), HERE)
    searched = [f"search-north-s100-{label}-d{i}" for label in ("teacher", "CE", "KD") for i in range(2)]
    assert names(jobs)[:6] == searched and names(jobs, open=False) == searched[:4]
    assert {job.parameters["steps"] for job in jobs[:6]} == {4} and jobs[6].parameters["steps"] == 6
    assert {job.parameters["seed"] for job in jobs[:6]} == {100}
    assert str(jobs[2].run) == "/runs/search/north-s100/CE-d0"
    drawn = [draw(Search(**SEARCH), i)["learning_rate"] for i in range(2)]
    assert [job.parameters["learning_rate"] for job in jobs[:4]] == drawn * 2
    assert jobs[-1].parameters["only"] == ["north-s0/teacher", "north-s0/CE", "north-s0/KD", "north-s0/CE+KD"]
    assert len(jobs[-1].parameters["searched"]) == 6 and jobs[-1].parameters["searched_by"] == "WAKD"


def test_what_waits_for_a_search_is_left_to_do(write, tmp_path):  # noqa: F811
    place = Place(tmp_path / "report", tmp_path / "runs")
    nothing = {"teacher": None, "window_map": None, "landscape": None}
    study = load_study(write(students={"CE": CE}, targets=["north"], search=SEARCH, **nothing))
    jobs, ready = plan(study, place), []
    study_run._round(study, jobs, place, lambda wanted: ready.extend(wanted) or "", lambda line: None)
    rows = {row["name"]: row for row in study_status.rows_of(place)}
    assert names(ready) == names(jobs, open=False) and len(rows) == len(jobs)
    assert rows["north-s0-CE"]["state"] == "waiting" and rows["north-s0-CE"]["said"] == "its settings are searched"
    assert study_status.exit_status([*rows.values()]) == 3


def test_students_alone_are_searched_with_the_study_s_teacher(write):  # noqa: F811
    file = write(targets=["north"], search={**SEARCH, "students": ["KD"]})
    jobs = plan(load_study(file), HERE)
    assert names(jobs, open=False) == [f"search-north-s100-{n}" for n in ("teacher", "KD-d0", "KD-d1")]
    assert {job.after for job in jobs[1:3]} == {("search-north-s100-teacher",)}
    assert {job.parameters["teacher"] for job in jobs[1:3]} == {"/runs/search/north-s100/teacher"}


def test_a_student_that_is_called_like_a_draw_is_none(write):  # noqa: F811
    students = {"net-d64": CE, "KD": {"teacher": "net-d64"}}
    file = write(students=students, teacher=None, targets=["north"], search={**SEARCH, "students": ["KD"]})
    jobs = plan(load_study(file), HERE)
    assert "search-north-s100-net-d64" in names(jobs)
    told = [(draw["student"], draw["draw"]) for draw in jobs[-1].parameters["searched"]]
    assert told == [("KD", 0), ("KD", 1)]


def test_a_study_is_trained_with_what_won(write, executed, tmp_path, monkeypatch):  # noqa: F811
    """One command from the first draw to the page; changed scores of the unseen domain choose nothing else."""
    over = {"learning_rate": [0.001, 0.03, 1e30]}  # the last one falls apart
    by_seed = {"draws": 6, "by": "WAKD", "over": over, "students": ["CE"]}
    file = write(
        students={"CE": CE, "KD": {}}, search=by_seed, targets=["north"], window_map=None, landscape={"students": []}
    )
    folders = {"out": tmp_path / "report", "runs": tmp_path / "runs"}
    lines = []
    index = run_study(file, say=lines.append, **folders)
    study = load_study(file)
    drawn = [draw(Search(**by_seed), i)["learning_rate"] for i in range(6)]
    lost = {i for i, rate in enumerate(drawn) if rate == 1e30}
    assert lost and sum(line.startswith("FAILED") for line in lines) == len(lost)
    found = {i: tmp_path / "runs" / "search" / "north-s100" / f"CE-d{i}" for i in {*range(6)} - lost}
    judged = {i: results.source_accuracy(run, "WAKD") for i, run in found.items()}
    best = max(judged, key=judged.get)
    settings = json.loads((tmp_path / "runs" / "north-s0" / "CE" / "settings.json").read_text())
    assert settings["learning_rate"] == drawn[best] and settings["split"]["seed"] == 0
    assert json.loads((found[best] / "settings.json").read_text())["split"]["seed"] == 100
    page = index.read_text()
    assert "What was searched" in page and "would have chosen otherwise" in page and str(drawn[best]) in page

    executed.clear()
    run_study(file, say=lines.append, **folders)
    assert executed == []  # draws that fell apart are not tried again
    assert planned(file, **folders)[-1].startswith("tiny: 0 of ")
    table, _ = status(file, **folders)
    assert set(table["state"]) == {"done"} and "search-north-s100-CE-d0" in set(table["name"]) | {
        f"search-north-s100-CE-d{i}" for i in lost
    }

    for i, run in found.items():  # an oracle would now choose another draw
        rows = pd.read_csv(run / "scores.csv")
        rows.loc[rows["role"] == "target", "accuracy"] = 0.0 if i == best else 1.0
        rows.to_csv(run / "scores.csv", index=False)
    place = Place(folders["out"].resolve(), folders["runs"].resolve(), file.parent)
    with monkeypatch.context() as patch:
        patch.setattr(draws, "reason", lambda *given: None)  # what else changed is told apart from it
        again = {job.name: job for job in plan(study, place)}
    assert again["north-s0-CE"].parameters["learning_rate"] == drawn[best] and not again["north-s0-CE"].open
    again = {job.name: job.open for job in plan(study, place)}
    assert again["north-s0-CE"], "scores that are not those of its notebook choose nothing"
    (run,) = [run for i, run in found.items() if i == best]
    (run / "scores.csv").unlink()
    assert {job.name for job in plan(study, place) if job.open} >= {"north-s0-CE", "north-s0-KD", "03_compare"}


def test_other_settings_of_a_draw_that_fell_apart_are_tried(write, tmp_path):  # noqa: F811
    place = Place(tmp_path / "report", tmp_path / "runs")
    place.prepare()
    study = load_study(
        write(students={"CE": CE}, teacher=None, targets=["north"], window_map=None, landscape=None, search=SEARCH)
    )
    job = plan(study, place)[0]
    record = {
        "said": "02_distill stopped at In [4], Diverged: The training loss became nan.",
        "recording": job_files._recording(job, place),
    }
    job_files.describe([job], place)
    place.file("failed", job.name).write_text(json.dumps(record))
    assert job_files.fell_apart(job, place) and job.name not in names(plan(study, place))
    told = {draw["draw"]: draw.get("fell_apart", False) for draw in plan(study, place)[-1].parameters["searched"]}
    assert told == {0: True, 1: False}, "the page knows that it lost"
    other = load_study(
        write(
            students={"CE": CE},
            teacher=None,
            targets=["north"],
            window_map=None,
            landscape=None,
            search={**SEARCH, "seed": 1},
        )
    )
    assert job.name in names(plan(other, place))
    place.file("failed", job.name).write_text(
        json.dumps({**record, "said": "its kernel died: killed, or out of memory"})
    )
    assert job.name in names(plan(study, place))


def test_draws_of_which_each_fell_apart_on_another_seed_leave_no_winner(write, tmp_path):  # noqa: F811
    place = Place(tmp_path / "report", tmp_path / "runs")
    place.prepare()
    nothing = {"teacher": None, "window_map": None, "landscape": None}
    search = {**SEARCH, "seeds": 2}
    study = load_study(write(students={"CE": CE}, targets=["north"], search=search, **nothing))
    jobs = {job.name: job for job in plan(study, place)}
    for name in ("search-north-s100-CE-d0", "search-north-s101-CE-d1"):
        record = {"said": "Diverged: nan.", "recording": job_files._recording(jobs[name], place)}
        place.file("failed", name).write_text(json.dumps(record))
    with pytest.raises(StudyProblem, match="every draw of CE without north fell apart; search lower rates"):
        plan(study, place)


def test_a_draw_without_a_window_on_one_seed_is_no_winner(write, monkeypatch):  # noqa: F811
    nothing = {"teacher": None, "window_map": None, "landscape": None}
    study = load_study(write(students={"CE": CE}, targets=["north"], search={**SEARCH, "seeds": 2}, **nothing))
    without = {"s100/CE-d0", "s101/CE-d1"}
    monkeypatch.setattr(draws, "reason", lambda *given: None)
    monkeypatch.setattr(
        draws,
        "source_accuracy",
        lambda run, *given: -math.inf if any(str(run).endswith(w) for w in without) else 0.5,
    )
    said = "no draw of CE without north has a score by WAKD on every split: of 2, 0 fell apart and the others found no window"
    with pytest.raises(StudyProblem, match=said):
        plan(study, HERE)
    without.discard("s101/CE-d1")
    (found,) = [job for job in plan(study, HERE) if job.name == "north-s0-CE"]
    assert found.parameters["learning_rate"] == draw(Search(**SEARCH), 1)["learning_rate"]


def test_a_search_is_extended_key_by_key(write, tmp_path):  # noqa: F811
    write(search=SEARCH)
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"extends": "tiny.yaml", "search": {"draws": 20, "seeds": 3}}))
    assert load_study(tmp_path / "more.yaml").search == {**SEARCH, "draws": 20, "seeds": 3}


def test_a_student_is_trained_with_what_it_draws_instead(write, tmp_path):  # noqa: F811
    own = {"KD": {"learning_rate": "10^U(-6,-5)", "weights": ["a.safetensors", None]}}
    study = load_study(write(search={**SEARCH, "over": {**OVER, "weights": ["b.pt"]}, "instead": own}))
    assert study.search["over"]["weights"] == [str(tmp_path / "b.pt")]  # as everywhere, relative to the study's file
    assert study.search["instead"]["KD"]["weights"] == [str(tmp_path / "a.safetensors"), None]
    rates = {}
    for job in plan(load_study(write(search={**SEARCH, "instead": {"KD": {"learning_rate": "10^U(-6,-5)"}}})), HERE):
        if job.name.startswith("search-"):
            rates.setdefault(job.run.name.rsplit("-d")[0], []).append(job.parameters["learning_rate"])
    assert all(rate < 1e-5 for rate in rates["KD"]) and all(rate > 1e-4 for rate in rates["teacher"])


# ---- leaving one source out


def test_every_draw_is_also_trained_without_each_source_and_never_meets_the_unseen_domain(write):  # noqa: F811
    file = write(targets=["north"], search={**SEARCH, "draws": 1, "rule": "leave_one_source_out"})
    jobs = [job for job in plan(load_study(file), HERE) if job.name.startswith("search-")]
    splits = ["north-s100", "north-s100-without-east", "north-s100-without-south"]
    assert names(jobs) == [f"search-{split}-{label}-d0" for label in ("teacher", "KD") for split in splits]
    held = [job.parameters for job in jobs if "without" in job.name]
    assert [(p["target"], p["only"]) for p in held] == [("east", ["south"]), ("south", ["east"])] * 2
    assert held[2]["teacher"] == "/runs/search/north-s100-without-east/teacher-d0"
    assert all("north" not in [p["target"], *p["only"]] for p in held)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"students": {"CE": {**CE, "only": [1]}}}, "leave_one_source_out leaves sources out itself, and CE says only"),
        (
            {"targets": [["north", "east"]], "landscape": None},
            r"without east\+north there is one source; leaving it out leaves none",
        ),
        ({"search": {**SEARCH, "rule": "oracle"}}, "rule"),
    ],
)
def test_a_rule_that_cannot_choose_is_a_sentence(write, changes, sentence):  # noqa: F811
    with pytest.raises(StudyProblem, match=sentence):
        plan(load_study(write(**{"search": {**SEARCH, "rule": "leave_one_source_out"}, **changes})), HERE)


def test_each_rule_chooses_among_the_same_draws_by_what_it_may_look_at(tmp_path):
    accuracy = {  # draw: source validation, accuracy on the unseen domain, on each source that was left out
        0: (0.9, 0.30, [0.2, 0.4]),
        1: (0.8, 0.50, [0.6, 0.8]),
        2: (0.7, 0.70, [0.9, 0.1]),
    }
    draws = []
    for number, (source, unseen, held) in accuracy.items():
        about = {"target": "t", "student": "KD", "draw": number, "settings": {}}
        for name, values in {"": ([source], unseen), "a": ([1.0], held[0]), "b": ([1.0], held[1])}.items():
            run = f"search/t-s0{name and '-without-' + name}/KD-d{number}"
            scores(tmp_path / run, last=values)
            draws.append({**about, "run": run} | ({"held": name} if name else {}))
    table = results.by_rule(tmp_path, draws, "last")
    assert table["rule"].tolist() == list(results.RULES.values()) and table["t"].tolist() == pytest.approx([30, 50, 70])
    plain = [draw for draw in draws if "held" not in draw]
    assert results.by_rule(tmp_path, plain, "last")["t"].tolist() == pytest.approx([30, 70])  # two rules there
    assert results.searched(tmp_path, draws, ["last"])["draws"].tolist() == [3]
    for rule, source in {"training_domain_validation": 90, "leave_one_source_out": 70}.items():
        (row,) = results.searched(tmp_path, draws, ["last"], rule).to_dict("records")
        assert row["source"] == pytest.approx(source), (
            "the table names what the rule fixed, not what another would have"
        )


def test_a_draw_that_fell_apart_on_one_split_wins_nowhere(tmp_path):
    draws = []
    for number, accuracy in enumerate([0.9, 0.6]):
        for seed in range(2):
            run, about = f"search/t-s{seed}/KD-d{number}", {"target": "t", "student": "KD", "draw": number}
            scores(tmp_path / run, last=([accuracy], accuracy))
            draws.append({**about, "settings": {"learning_rate": float(number)}, "run": run})
    assert results.searched(tmp_path, draws, ["last"])["settings"].tolist() == ["learning_rate 0.0"]
    draws[1]["fell_apart"] = True  # the better one, on its second seed
    (tmp_path / draws[1]["run"] / "scores.csv").unlink()
    table = results.searched(tmp_path, draws, ["last"])
    assert table["settings"].tolist() == ["learning_rate 1.0"] and table["source"].tolist() == pytest.approx([60])
    assert results.by_rule(tmp_path, draws, "last")["t"].tolist() == pytest.approx([60, 60])
    everything = [{**draw, "fell_apart": True} for draw in draws]
    assert results.searched(tmp_path, everything, ["last"])["settings"].tolist() == [""]
    assert results.by_rule(tmp_path, everything, "last").empty


def test_a_study_that_leaves_sources_out_is_trained_with_what_won_there(write, executed, tmp_path):  # noqa: F811
    search = {"draws": 2, "by": "last", "over": OVER, "rule": "leave_one_source_out"}
    strategies = ["last", {"name": "wakd", "label": "WAKD", "begin": 0.5}]
    nothing = {"teacher": None, "window_map": None, "landscape": {"students": []}}
    file = write(students={"CE": CE}, search=search, targets=["north"], strategies=strategies, **nothing)
    folders = {"out": tmp_path / "report", "runs": tmp_path / "runs"}
    page = run_study(file, say=lambda line: None, **folders).read_text()
    found = {
        number: [folders["runs"] / f"search/north-s100-without-{held}/CE-d{number}" for held in ("east", "south")]
        for number in range(2)
    }
    judged = {n: np.mean([results.source_accuracy(run, "last", "target") for run in runs]) for n, runs in found.items()}
    best = max(judged, key=judged.get)
    rate = draw(Search(**search), best)["learning_rate"]
    assert json.loads((folders["runs"] / "north-s0/CE/settings.json").read_text())["learning_rate"] == rate
    for runs in found.values():
        assert all("north" not in set(pd.read_csv(run / "scores.csv")["domain"]) for run in runs)
    assert page.count("Settings were searched by leave-one-source-domain-out, 2 draws judged at last") >= 1
    assert f"learning_rate {rate}</td>" in page.partition("What was searched")[2].partition("</table>")[0]
    assert "Model selection, by training-domain validation" in page and "oracle: the unseen domain itself" in page
    rules = (folders["out"] / "rules.tex").read_text()
    assert "leave-one-source-domain-out" in rules and "decided nothing" in rules
    assert pd.read_csv(folders["out"] / "rules.csv")["rule"].tolist() == list(results.RULES.values())


def test_what_another_wins_is_tried_on_who_takes_it(write):  # noqa: F811
    students = {"CE": CE, "KD": {"freeze": "backbone", "batchnorm": "frozen"}}
    search = {**SEARCH, "draws": 1, "students": ["CE"], "over": {"batchnorm": ["recalibrate"]}, "like": {"KD": "CE"}}
    with pytest.raises(StudyProblem, match=r"KD: freeze holds .* take batchnorm='frozen'"):
        plan(load_study(write(students=students, targets=["north"], search=search)), HERE)
