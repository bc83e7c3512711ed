"""The command line: every command prints what it did, and what a user can mend is one sentence and status 2."""

import importlib.metadata
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import wakd_kit as wk
from wakd_kit.averaging import strategies
from wakd_kit.cli import LISTS, _told_apart, absolute, main
from wakd_kit.files import Held
from wakd_kit.objectives import objectives
from wakd_kit.reporting.execute import NotebookFailed
from wakd_kit.runs import record as recording
from wakd_kit.runs import store
from wakd_kit.runs.store import estimate_bytes, read_state
from wakd_kit.study import run as study

from .forked import shared
from .offline import offline_problems

TINY = [
    "image_size=16",
    "target=south",
    "model=resnet10t",
    'model_settings={"channels": [4, 8, 8, 8], "stem_width": 4, "layers": [1, 1, 0, 0]}',
    "steps=6",
    "segment_length=2",
    "batch_size=8",
]


@pytest.fixture(scope="module")
def student(finished):
    """A run's folder."""
    return finished / "runs" / "north-s0" / "KD"


@pytest.fixture(scope="module")
def benchmark(student):
    return f"benchmark={wk.load_run(student).settings['split']['benchmark']}"


@pytest.mark.parametrize(
    "what, names",
    [
        ("strategies", list(strategies)),
        ("objectives", list(objectives)),
        (
            "domains",
            [
                "celeba",
                "coloured_digits",
                "corrupted",
                "digits",
                "domainnet",
                "folder",
                "images",
                "officehome",
                "pacs",
                "spawrious_o2o_easy",
                "spawrious_o2o_hard",
                "spawrious_o2o_medium",
                "terra",
                "vlcs",
            ],
        ),
        ("studies", [file.stem for file in study.REPORTS.glob("*.yaml")]),
    ],
)
def test_list_prints_every_name_with_a_phrase(what, names, capsys):
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if not line.startswith(" ")]  # more of a strategy
    assert {line.split()[0] for line in lines} == set(names)
    assert all(len(line.split()) > 2 for line in lines)


def test_list_says_of_every_strategy_what_it_costs_and_where_it_is_from(capsys):
    assert main(["list", "strategies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(strategies)
    (sma,) = [more for line, more in zip(lines, lines[1:]) if line.startswith("sma ")]
    assert (
        sma.strip() == "exact: always: it looks over what is stored; cost: an average per checkpoint; Arpit et al. 2022"
    )


def test_help_and_data_do_not_wait_for_torch_or_papermill():
    code = "import sys, wakd_kit.cli as m; m.main(['data', 'check', '.']); print({'torch', 'timm', 'papermill'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    "command, sentence",
    [
        ("report quickstrat", "wakd report: Unknown study 'quickstrat'. Did you mean 'quickstart'?"),
        ("report nowhere.yaml", "wakd report: No study file at nowhere.yaml."),
        ("notebook 02_distill out.ipynb -p seed=abc", "wakd notebook: seed='abc': expected int, got str."),
        ("notebook 02_distil out.ipynb", "wakd notebook: Unknown notebook '02_distil'. Did you mean '02_distill'?"),
        ("notebook 02_distill out.ipynb -p seed", "wakd notebook: A parameter is written name=value; got 'seed'."),
        (
            "notebook 02_distill o -p seed=1 -p seed=2",
            "wakd notebook: seed is given twice; leave one of them out, 'seed=2'",
        ),
        ("notebook mine.ipynb out.ipynb", "wakd notebook: No notebook at mine.ipynb."),
        (
            "notebook 02_distill o -p target=ink -p teacher=t",
            "wakd notebook: No teacher at t. One is trained by: wakd notebook 01_train_teacher teacher.ipynb -p benchmark=digits -p target=ink -p seed=0 -p save_to=t",
        ),
        (
            "notebook 02_distill o -p benchmark=pacs -p image_size=64 -p teacher=t",
            "wakd notebook: No teacher at t. One is trained by: wakd notebook 01_train_teacher teacher.ipynb -p benchmark=pacs -p image_size=64 -p target=photo -p seed=0 -p save_to=t",
        ),
        (
            "average nowhere --strategy wakd --export f.safetensors",
            "wakd average: No run at nowhere: it has no settings.json.",
        ),
        (
            "average RUN --strategy wakdd --export f.safetensors",
            "wakd average: Unknown strategy 'wakdd'. Did you mean 'wakd'?",
        ),
        ("average RUN --strategy wakd bgin=1 --export f.safetensors", "wakd average: Unknown setting of wakd 'bgin'."),
        ("average RUN --strategy wakd begin=x --export f.safetensors", "wakd average: begin is a step as an int >= 0"),
        ("average RUN --strategy swad n_converge=9 --export f.safetensors", "wakd average: swad found no window: "),
        ("landscape nowhere", "wakd landscape: No run at nowhere: it has no settings.json."),
        ("landscape RUN sise=3", "wakd landscape: Unknown parameter 'sise'. Did you mean 'size'?"),
        ("landscape RUN size=1", "wakd landscape: size is at least 2; got 1."),
        ("explore nowhere/x", "wakd explore: No run at nowhere/x: it has no settings.json."),
        (
            "explore quickstrat",
            "wakd explore: No run at quickstrat, and no study: Unknown study 'quickstrat'. Did you mean 'quickstart'?",
        ),
        ("report quickstart --cores 0", "wakd report: cores is 1 or more; got 0."),
        ("report quickstart --cores -3 --dry-run", "wakd report: cores is 1 or more; got -3."),
        ("report quickstart --gpus -1 --dry-run", "wakd report: gpus is 0 or more; got -1."),
        ("report quickstart --profile nope --dry-run", "wakd report: No profile at nope: "),
        ("report quickstart --out /dev/null --dry-run", "wakd report: /dev/null is no folder; give another --out."),
        ("report quickstart --runs /dev/null/x", "wakd report: /dev/null is no folder; give another --runs."),
        (
            "average RUN --strategy last --export /dev/null/x.safetensors",
            "wakd average: /dev/null cannot be made (File exists); give another place for the export.",
        ),
        (
            "notebook 01_train_teacher /dev/null/x/o.ipynb",
            "wakd notebook: /dev/null/x cannot be made (Not a directory); give another place for the executed notebook.",
        ),
        (
            "explore RUN -o /dev/null/x.html",
            "wakd explore: /dev/null cannot be made (File exists); give another place for the page.",
        ),
        (
            "data check . --sheet /dev/null/x.png",
            "wakd data: /dev/null cannot be made (File exists); give another place for the contact sheet.",
        ),
        ("data check . --sheet .", "wakd data: . is a folder; name a file in it for the contact sheet."),
        ("compare RUN RUN", "wakd compare: "),
        ("doctor nowhere", "wakd doctor: No run at nowhere: it has no settings.json."),
        ("train sted=3", "wakd train: Unknown parameter 'sted'. Did you mean 'seed'? Known: batch_size, "),
        ("train seed=abc", "wakd train: seed='abc': expected int, got str."),
        ("train pretrained=3", "wakd train: pretrained=3: expected bool, got int."),
        ("train optimiser=adm", "wakd train: optimiser='adm': choose one of 'adam', 'adamw', 'sgd'."),
        ("train window_map_grid=3", "wakd train: Unknown parameter 'window_map_grid'."),
        ("train benchmark=digit", "wakd train: Unknown benchmark 'digit'. Did you mean 'digits'?"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(command, sentence, student, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(student) if word == "RUN" else word for word in command.split()]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(sentence) and said.err.count("\n") == 1 and not said.out
    assert not list(tmp_path.iterdir())


def test_a_notebook_that_fails_is_a_sentence_and_ctrl_c_a_status(monkeypatch, capsys):
    def fail(*_, **__):
        raise NotebookFailed("02_distill stopped at In [4], ValueError: too small.")

    monkeypatch.setattr("wakd_kit.reporting.execute.execute", fail)
    assert main(["notebook", "01_train_teacher", "out.ipynb"]) == 2
    assert capsys.readouterr().err == "wakd notebook: 02_distill stopped at In [4], ValueError: too small.\n"

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("wakd_kit.reporting.execute.execute", interrupt)
    assert main(["notebook", "01_train_teacher", "out.ipynb"]) == 130
    assert capsys.readouterr().err == "\nwakd notebook: interrupted; what is recorded is kept.\n"


def test_paths_of_a_notebook_are_those_of_where_one_stands_and_values_are_typed_by_their_field(
    monkeypatch, tmp_path, student
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "settings.json").write_text("{}")
    asked = []
    monkeypatch.setattr(
        "wakd_kit.reporting.execute.execute", lambda source, out, given, **_: asked.append(given) or out
    )
    monkeypatch.setattr("wakd_kit.reporting.render.render", lambda executed, page: page)
    given = {"target": "2012", "teacher": "teacher", "save_to": "~/run", "benchmark": "folder:images", "steps": "20"}
    words = [word for item in given.items() for word in ("-p", "=".join(item))]
    assert main(["notebook", "02_distill", "lr0.01", *words]) == 0
    assert main(["notebook", "03_compare", "out.ipynb", "-p", "runs=runs"]) == 0
    assert main(["landscape", str(student), 'others=["other"]', "figures=here"]) == 0
    assert {name: asked[0][name] for name in given} == {
        "target": "2012",
        "teacher": str(tmp_path / "teacher"),
        "save_to": str(tmp_path / "home" / "run"),
        "benchmark": f"folder:{tmp_path / 'images'}",
        "steps": 20,
    }
    assert asked[1]["runs"] == str(tmp_path / "runs") and asked[1]["tables"] == "../runs/explore/tables"
    assert asked[2]["others"] == [str(tmp_path / "other")] and asked[2]["figures"] == str(tmp_path / "here")


def test_a_run_that_was_not_evaluated_is_drawn_with_what_it_declared(student, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(student, tmp_path / "fresh")
    for file in ("choices.json", "scores.csv", "predictions.npz"):
        (folder / file).unlink()
    asked = []
    monkeypatch.setattr(
        "wakd_kit.reporting.execute.execute", lambda source, out, given, **_: asked.append(given) or out
    )
    monkeypatch.setattr("wakd_kit.reporting.render.render", lambda executed, page: page)
    assert main(["landscape", str(folder)]) == 0
    assert [spec["name"] for spec in asked[0]["strategies"]] == ["last", "wakd", "swad"]
    assert capsys.readouterr().out.startswith("fresh was not evaluated yet: last, wakd, swad are now.")


def test_what_a_terminal_cannot_write_is_written_as_its_number(monkeypatch):
    """An ASCII terminal, and names in no encoding at all."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setitem(LISTS, "domains", lambda: ["café \udce9"])
    assert main(["list", "domains"]) == 0
    out.flush()
    assert out.buffer.getvalue() == b"caf\\xe9 \\udce9\n"


@pytest.mark.parametrize(
    "error", [NotImplementedError("deflate64"), RuntimeError("no HOME"), Held("process 7"), OSError("full")]
)
def test_what_the_system_and_its_libraries_refuse_is_a_sentence(monkeypatch, capsys, error):
    def refuse():
        raise error

    monkeypatch.setitem(LISTS, "domains", refuse)
    assert main(["list", "domains"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("wakd list: ") and str(error) in said and said.count("\n") == 1


def test_two_studies_of_one_name_are_told_apart_by_where_they_lie():
    mine, theirs = Path("a/runs/tiny").absolute(), Path("b/moved/runs/tiny").absolute()
    assert _told_apart([("tiny", mine, {}), ("tiny", theirs, {})]) == ["tiny (a)", "tiny (b)"]
    assert _told_apart([("tiny", mine, {}), ("tiny", mine / "more", {})]) == ["tiny", "tiny (more)"]
    assert _told_apart([("tiny", mine, {}), ("small", theirs, {})]) == ["tiny", "small"]


def test_without_a_home_and_a_cache_the_setting_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("WAKD_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert main(["train", "save_to=x"]) == 2
    said = capsys.readouterr().err
    assert "WAKD_CACHE" in said and said.count("\n") == 1


def test_doctor_says_what_a_run_holds_and_takes(student, capsys):
    assert main(["doctor", str(student)]) == 0
    text = capsys.readouterr().out
    assert "Run('KD': resnet10t, target north, seed 0, 6 steps, 4 segments)" in text
    total = float(re.search(r"total +([\d.]+) MB", text).group(1))
    assert total == pytest.approx(sum(f.stat().st_size for f in student.rglob("*") if f.is_file()) / 1e6, abs=0.01)
    each = sum(f.stat().st_size for f in (student / "segments").iterdir()) / 4 / 1e6
    assert f"A stored segment takes {each:.2f} MB" in text and "most_stored=N" in text


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:-9])])
def test_doctor_names_a_segment_that_is_gone_or_was_cut_off(copied, capsys, damage):
    file = sorted((copied.folder / "segments").glob("0*"))[-1]
    damage(file)
    assert main(["doctor", str(copied.folder)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"wakd doctor: {file} is ") and "from a copy" in said.err and not said.out


def test_explore_says_of_a_study_that_it_was_not_run(tiny_study, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(tiny_study)
    assert main(["explore", str(tmp_path / "mine.yaml")]) == 2
    assert "mine.yaml was not run yet: nothing is at " in capsys.readouterr().err


def test_a_reader_that_has_enough_ends_a_command_quietly():
    command = [sys.executable, "-m", "wakd_kit", "list", "strategies"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == 1


def test_explore_says_of_an_interrupted_run_how_it_goes_on(copied, capsys):
    copied.folder.rename(f"{copied.folder}.recording")
    assert main(["explore", str(copied.folder)]) == 2
    assert "is not finished. Call train(" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, strategy", [(["wakd", "begin=0.5"], "wakd"), (["swad", "n_converge=1", "n_tolerance=1", "label=s"], "swad")]
)
def test_average_writes_what_run_average_returns(student, tmp_path, capsys, words, strategy):
    out = tmp_path / "new" / "f.safetensors"
    assert main(["average", str(student), "--strategy", *words, "--export", str(out)]) == 0
    run = wk.load_run(student)
    settings = {"wakd": {"begin": 0.5}, "swad": {"n_converge": 1, "n_tolerance": 1}}[strategy]
    coefficients = getattr(wk.averaging, strategy)(run.source_curves, **settings)
    expected, written = run.average(coefficients), read_state(out)
    assert {f"model.{name}" for name in written} == expected.keys()
    assert all(torch.equal(written[name], expected[f"model.{name}"]) for name in written)
    assert capsys.readouterr().out == f"{out}: {coefficients.note}\n{out}.json\n"


def test_landscape_draws_a_run_into_a_page_and_figures_for_print(student, tmp_path, monkeypatch, capsys):
    """Of a mixer of one block: the Hessian of a network is computed operation by operation."""
    split = wk.load_run(student).split
    mixer = wk.build_model("mixer_any", split.classes, seed=0, img_size=16, patch_size=8, embed_dim=8, num_blocks=1)
    few = {"steps": 6, "segment_length": 2, "batch_size": 8, "device": "cpu", "progress": False}
    run = wk.train(mixer, split, save_to=tmp_path / "student", **few)
    wk.evaluate(run, wk.choose(run, ["last", {"name": "wakd", "label": "WAKD", "begin": 0.5}]), split)
    monkeypatch.chdir(tmp_path)
    for name, value in shared().items():  # its kernel is a fork
        monkeypatch.setenv(name, value)
    settings = ["size=2", "radii=[1.0]", "directions=3", 'strategies=["last", "WAKD"]', "curvature_images=2"]
    assert main(["landscape", "student", *settings]) == 0
    page = tmp_path / "student" / "landscape" / "04_landscape.html"
    announced, said = capsys.readouterr().out.splitlines()
    assert announced.startswith("A plane of 2 x 2 points around student: ") and said == str(page)
    assert offline_problems(page) == []
    text = page.read_text()
    assert "Hessian" in text and "So in this run WAKD is " in text and text.count("<figure>") == 6
    figures = {"along_training", "plane_loss", "plane_accuracy", "lines", "flatness", "eigenvalues"}
    assert {file.stem for file in page.parent.glob("*.pdf")} == figures
    assert main(["doctor", "student"]) == 0
    assert "gram_*.npy (" in capsys.readouterr().out


def test_train_says_what_it_takes_records_and_says_where(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", benchmark, *TINY, "teacher=none", "seed=2"]) == 0
    alone, takes, summary, folder = capsys.readouterr().out.splitlines()
    assert alone == "No teacher was given, so it is trained with cross-entropy."
    assert re.fullmatch(
        r"Recording 4 segments, 4 stored, takes at most [\d.]+ MB of disk and [\d.]+ MB of memory\.", takes
    )
    assert summary.startswith("resnet10t (0.00 million parameters): 6 steps of 8 images in ")
    run = wk.load_run(folder)
    assert folder.startswith("runs/") and folder.endswith("-resnet10t-south-s2") and run.complete
    assert [spec["name"] for spec in run.settings["objectives"]] == ["ce"]


def test_train_takes_several_teachers_and_a_start(finished, benchmark, tmp_path, monkeypatch, capsys):
    runs = finished / "runs" / "north-s0"
    words = [benchmark, TINY[0], "target=north", *TINY[2:], f"save_to={tmp_path / 'run'}", f"start={runs / 'KD'}"]
    teacher = json.dumps({"of": [str(runs / "teacher"), "start"], "weigh": "right"})
    assert main(["train", *words, f"teacher={teacher}"]) == 0
    run = wk.load_run(tmp_path / "run")
    assert (
        run.settings["teacher"]["run"] == "teacher + start" and run.settings["student"]["started_from"] == "KD (last)"
    )
    assert main(["train", *words, f"teacher={teacher.replace('right', 'wright')}"]) == 2
    assert "Unknown weigh 'wright'. Did you mean 'right'?" in capsys.readouterr().err


def test_places_in_what_several_settings_name_are_made_whole():
    given = {"teacher": {"of": ["a", "start"], "weigh": "right"}, "start": {"of": "b", "by": "channels"}}
    whole = {"teacher": {"of": ["/x/a", "start"], "weigh": "right"}, "start": {"of": "/x/b", "by": "channels"}}
    assert absolute(given, "/x") == whole
    given = {"objectives": ["ce", {"name": "vl2v", "embeddings": "e.safetensors"}]}
    assert absolute(given, "/x") == {"objectives": ["ce", {"name": "vl2v", "embeddings": "/x/e.safetensors"}]}
    given = {"mask": "m.csv", "benchmark": "corrupted:folder:images"}
    assert absolute(given, "/x") == {"mask": "/x/m.csv", "benchmark": "corrupted:folder:/x/images"}
    for benchmark in ("digits", "corrupted:digits"):
        assert absolute({"benchmark": benchmark}, "/x") == {"benchmark": benchmark}


def test_train_learns_from_a_teacher_and_continues_what_was_stopped(finished, benchmark, tmp_path, monkeypatch, capsys):
    teacher = finished / "runs" / "north-s0" / "teacher"
    words = [benchmark, TINY[0], "target=north", *TINY[2:], f"teacher={teacher}", f"save_to={tmp_path / 'run'}"]
    monkeypatch.setattr("wakd_kit.runs.record.Checkpoint.save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    assert main(["train", *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "wakd train: disk full"  # below the bar, not in it
    monkeypatch.undo()
    assert main(["train", *words]) == 0 and main(["train", *words]) == 0  # the second finds it done
    assert " What its teacher gives takes at most 0.0 MB of the cache.\n" in capsys.readouterr().out
    assert wk.load_run(tmp_path / "run").settings["teacher"]["run"] == "teacher"


@pytest.mark.parametrize("storage", store.STORAGE)
def test_a_recording_takes_at_most_what_was_estimated_and_not_much_less(split, tmp_path, monkeypatch, storage):
    student = wk.build_model("resnet10t_w16", split.classes, seed=0)
    replace, sizes = recording.os.replace, []

    def measured(old, new):  # the moment when a file and its successor are both there
        sizes.append(sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()))
        replace(old, new)

    monkeypatch.setattr(recording.os, "replace", measured)
    settings = {"steps": 24, "segment_length": 1, "batch_size": 8, "most_stored": 20, "declare": [], "device": "cpu"}
    run = wk.train(student, split, storage=storage, save_to=tmp_path / "run", progress=False, **settings)
    assert len(run.segments) == 20
    assert 0.75 < max(sizes) / estimate_bytes(student, 20, storage)["disk"] < 1


def test_the_command_line_works_where_the_kit_is_not_installed(monkeypatch, capsys):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == "wakd_kit from its folder\n"
