"""When a job is done, what makes it undone, and who may work at it."""

import contextlib
import fcntl
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from wakd_kit import files
from wakd_kit.reporting import execute as notebook
from wakd_kit.reporting import render as report
from wakd_kit.study import jobs
from wakd_kit.study import run as study_run
from wakd_kit.study.jobs import Job, Place
from wakd_kit.study.run import WORKFLOW


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path / "report", tmp_path / "runs")
    found.prepare()
    return found


@pytest.fixture
def teacher(place):
    parameters = {"save_to": str(place.runs / "teacher"), "steps": 6, "strategies": ["last"], "deploy": "last"}
    return Job("teacher", Path("/notebooks/01_train_teacher.ipynb"), parameters, (), {"views": "1"}, {"figures": "1"})


@pytest.fixture
def student(place):
    parameters = {"save_to": str(place.runs / "kd"), "teacher": str(place.runs / "teacher"), "strategies": ["last"]}
    return Job("kd", Path("/notebooks/02_distill.ipynb"), parameters, ("teacher",), {"views": "1"}, {"figures": "1"})


@pytest.fixture
def executed(monkeypatch):
    """Stands in for kernels: a notebook records a run whose last segment holds what ``content`` says."""
    names, content = [], {}

    def execute(source, out, parameters, *, cwd, env, checked):
        names.append((out.stem, env))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("{}")
        run = Path(parameters["save_to"])
        if not run.exists():
            (run / "segments").mkdir(parents=True)
            (run / "settings.json").write_text(json.dumps(parameters))
            (run / "segments" / "index.json").write_text(json.dumps([{"file": "a.safetensors"}]))
            (run / "segments" / "a.safetensors").write_text(content.get(out.stem, ""))
        (run / "deployed.json").write_text(json.dumps({"values": parameters.get("deploy")}))

    monkeypatch.setattr(notebook, "execute", execute)
    monkeypatch.setattr(report, "render", lambda executed, page, **_: page.write_text("page"))
    return names


def do(place, *what):
    for job in what:
        jobs.perform(job, place, say=lambda line: None)


def test_a_job_is_done_once_and_says_so_to_the_engine(place, teacher, student, executed):
    assert jobs.pending([teacher, student], place) == {"teacher": "new", "kd": "new"}
    do(place, teacher, student)
    assert jobs.pending([teacher, student], place) == {}
    assert [name for name, _ in executed] == ["teacher", "kd"]
    do(place, teacher, student)
    assert len(executed) == 2
    assert {file.name for file in (place.engine / "stamps").iterdir()} == {"teacher", "kd"}
    assert jobs.done(teacher, place)["why"] == "new" and jobs.done(teacher, place)["seconds"] >= 0


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda job, place: replace(job, parameters={**job.parameters, "steps": 7}), "steps changed"),
        (lambda job, place: replace(job, training={"views": "2"}), "code of views changed"),
        (lambda job, place: replace(job, analysis={"figures": "1", "new": "1"}), "code of new changed"),
        (lambda job, place: place.executed(job).unlink(), "its notebook is gone"),
        (lambda job, place: place.rendered(job).unlink(), "its page is gone"),
        (lambda job, place: replace(job, rendering={"page.css": "2"}), "its page's page.css changed"),
        (lambda job, place: replace(job, given={"images": "2"}), "images changed"),
        (lambda job, place: (job.run / "deployed.json").unlink(), "its deployed.json is gone"),
        (lambda job, place: (job.run / "deployed.json").write_text("{}"), "its deployed.json changed"),
        (lambda job, place: place.file("done", job.name).write_text(""), "was done by another version"),
        (lambda job, place: place.file("done", job.name).write_text("[1"), "was done by another version"),
        (lambda job, place: place.file("done", job.name).write_text('{"scheme": 1}'), "was done by another version"),
        (lambda job, place: place.file("failed", job.name).write_text('{"said": "x"}'), "failed before"),
        (lambda job, place: (job.run / "settings.json").unlink(), "its recording is gone"),
        (lambda job, place: place.file("done", job.name).unlink(), "new"),
    ],
)
def test_what_makes_a_job_undone(place, teacher, student, executed, change, why):
    do(place, teacher, student)
    changed = change(teacher, place)
    changed = changed if isinstance(changed, Job) else teacher
    assert jobs.reason(changed, place) == why
    assert jobs.pending([changed, student], place) == {"teacher": why, "kd": "after teacher"}
    assert jobs.reason(student, place) is None  # by itself: its teacher may end the same


def test_a_job_before_it_that_ends_the_same_is_no_reason(place, teacher, student, executed):
    do(place, teacher, student)
    do(place, replace(teacher, analysis={"figures": "2"}), student)
    assert [name for name, _ in executed] == ["teacher", "kd", "teacher"]


def test_a_page_alone_is_made_again_without_executing_anything(place, teacher, executed):
    do(place, teacher)
    then = jobs.done(teacher, place)
    other = replace(teacher, rendering={"page.css": "2"})
    place.rendered(teacher).unlink()
    do(place, other)
    assert len(executed) == 1 and place.rendered(teacher).is_file() and jobs.reason(other, place) is None
    assert jobs.done(other, place)["seconds"] == then["seconds"] and jobs.done(other, place)["result"] == then["result"]


def test_why_a_job_failed_is_kept_until_it_is_mended(place, teacher, executed, monkeypatch):
    def stops(*_, **__):
        raise notebook.NotebookFailed("01_train_teacher stopped, Diverged: loss nan.")

    with monkeypatch.context() as patch:
        patch.setattr(notebook, "execute", stops)
        with pytest.raises(notebook.NotebookFailed):
            do(place, teacher)
    assert jobs.failure(teacher, place) == "01_train_teacher stopped, Diverged: loss nan."
    assert jobs.reason(teacher, place) == "failed before"
    do(place, teacher)
    assert jobs.failure(teacher, place) == "" and jobs.reason(teacher, place) is None


def test_a_study_that_was_moved_is_done_and_data_elsewhere_are_the_same_data(tmp_path, executed):
    here, there = tmp_path / "here", tmp_path / "there"

    def of(root, data="folder:/data") -> tuple[Job, Place]:
        parameters = {"save_to": str(root / "runs" / "kd"), "steps": 6, "benchmark": data, "strategies": ["last"]}
        parameters |= {"weights": str(root / "study" / "w.pth"), "teacher": None}
        job = Job("kd", Path("/notebooks/02_distill.ipynb"), parameters, (), {"train": "1"}, given={"images": "1"})
        return job, Place(root / "report", root / "runs", root / "study")

    job, place = of(here)
    place.prepare()
    do(place, job)
    here.rename(there)
    job, place = of(there, "folder:/elsewhere")
    assert jobs.reason(job, place) is None and jobs.retrained(job, place) == ""
    other = replace(job, given={"images": "2"})
    assert jobs.reason(other, place) == "images changed" and jobs.retrained(other, place) == "images"


def test_what_a_recording_was_made_from_and_would_not_be_now_makes_it_another(place, student, teacher, executed):
    given = {"images": "1", "weights": "w", "start": "s", "refit": "r", "objective own": "o"}
    do(place, replace(teacher, given=given))
    for name in ("weights", "start", "refit"):
        without = replace(teacher, given={other: value for other, value in given.items() if other != name})
        assert jobs.retrained(without, place) == name
    assert jobs.retrained(replace(teacher, given={**given, "images": "2", "weights": "x"}), place) == "images, weights"


@pytest.mark.parametrize("folder, kind", [("exp:1", ""), ("exp", "pacs:"), ("a:b:c", "corrupted:pacs:")])
def test_a_colon_may_end_a_kind_or_stand_in_a_folder_s_name(tmp_path, folder, kind):
    place = Place(tmp_path / folder / "report", tmp_path / folder / "runs")
    assert place.relative([f"{kind}{place.runs / 'a'}"]) == [f"{kind}<runs>/a"]
    assert place.relative("digits") == "digits" and place.relative("pacs:/data") == "pacs:/data"


def as_before(place, job, **recording):
    """What a recording was begun with is told as it was before code had a scheme: by module, with paths."""
    began = json.loads(place.file("began", job.name).read_text())
    kept = {name: value for name, value in began["recording"].items() if not name.startswith("code of ")}
    kept |= {"code of views": "an older digest", "benchmark": "folder:/data", "steps": 6, **recording}
    place.file("began", job.name).write_text(json.dumps({"recording": kept, "strategies": began["strategies"]}))


def test_recordings_of_before_are_accepted_by_settings_weights_images_and_teacher(place, student, teacher, executed):
    do(place, teacher, student)
    assert jobs.accepted(student, place) == ""
    as_before(place, teacher)
    now = replace(teacher, training={"train": "2"}, given={"images": "1", "weights": "w"})
    assert jobs.retrained(now, place) == "" and jobs.accepted(now, place) == "code"
    longer = replace(now, parameters={**now.parameters, "steps": 7})
    assert jobs.retrained(longer, place) == "steps"
    as_before(place, teacher, **{"code of weights": "other"})
    assert jobs.retrained(now, place) == "weights"
    as_before(place, teacher)
    settings = teacher.run / "settings.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "split": {"fingerprint": "other"}}))
    assert jobs.retrained(now, place) == "images"
    # a setting that there was not had its default
    assert jobs.retrained(replace(teacher, parameters={**teacher.parameters, "warmup": 0}), place) == ""
    assert jobs.retrained(replace(teacher, parameters={**teacher.parameters, "warmup": 5}), place) == "warmup"


def test_a_teacher_that_deploys_what_it_deployed_keeps_students_of_before(place, student, teacher, executed):
    do(place, teacher, student)
    as_before(place, student, **{"the teacher": ["told by an older version"]})
    done = place.file("done", "teacher")
    done.write_text(json.dumps({"teaches": "told by an older version", "result": "x"}))
    do(place, teacher)
    assert jobs.retrained(student, place) == ""
    do(place, replace(student, analysis={"figures": "2"}))
    assert not list(place.runs.glob("kd.before-*")) and len(executed) == 4
    as_before(place, student, **{"the teacher": ["another one"]})
    assert jobs.retrained(student, place) == "the teacher"


def test_another_library_is_said_and_keeps_the_recording(place, teacher, executed, monkeypatch):
    do(place, teacher)
    monkeypatch.setattr(jobs.sources, "of_libraries", lambda: {"torch": "9.9"})
    assert jobs.retrained(teacher, place) == "" and jobs.accepted(teacher, place).startswith("torch ")
    do(place, replace(teacher, analysis={"torch": "9.9"}))
    assert jobs.accepted(teacher, place).startswith("torch "), "what a finished one was made with stays known"


def test_a_comparison_goes_on_with_what_is_there(place):
    page = {"title": "T", "also": {}, "listed": False}
    page["notebooks"] = [["a", 0, {"CE": "notebooks/a-s0-CE.html", "KD": "notebooks/a-s0-KD.html"}]]
    parameters = {"runs": str(place.runs), "only": ["a-s0/CE", "a-s0/KD"]}
    whole = Job("03_compare", Path("/notebooks/03_compare.ipynb"), parameters, ("a-s0-CE", "a-s0-KD"), page=page)
    part = jobs.present(whole, {"a-s0-KD": "Diverged", "other": "not of this"})
    assert part.parameters["only"] == ["a-s0/CE"] and part.after == ("a-s0-CE",)
    assert part.page["notebooks"] == [["a", 0, {"CE": "notebooks/a-s0-CE.html"}]]
    assert part.missing == {"a-s0-KD": "Diverged"} and jobs.present(whole, {}) == whole
    draws = [
        {"target": t, "student": "KD", "draw": i, "run": f"search/{t}-s100/KD-d{i}"} for t in ("a", "b") for i in (0, 1)
    ]
    after = (*whole.after, "search-a-s100-KD-d1")
    searched = replace(whole, after=after, parameters={**parameters, "searched": draws})
    part = jobs.present(searched, {"search-a-s100-KD-d1": "no space left"})
    assert part.parameters["searched"] == draws[2:], "a search without one of its draws has no winner"


def test_what_waits_for_a_draw_that_failed_keeps_no_page_back(place, executed, monkeypatch):
    draw, student, other = (
        Job(name, Path("/notebooks/02_distill.ipynb"), {"save_to": str(place.runs / where)}, open=waits)
        for name, where, waits in (
            ("search-a-s100-KD-d0", "search/a-s100/KD-d0", False),
            ("a-s0-KD", "a-s0/KD", True),
            ("b-s0-KD", "b-s0/KD", False),
        )
    )
    page = {"title": "T", "also": {}, "listed": False, "notebooks": []}
    parameters = {"runs": str(place.runs), "only": ["a-s0/KD", "b-s0/KD"]}
    after = (draw.name, student.name, other.name)
    compared = Job("03_compare", Path("/notebooks/03_compare.ipynb"), parameters, after, page=page)
    whole, asked = [draw, student, other, compared], []
    left = {name: "new" for name in (draw.name, student.name, compared.name)}
    monkeypatch.setattr(study_run, "pending", lambda jobs, place: dict(left))
    monkeypatch.setattr(study_run, "show_missing", lambda *_: None)
    monkeypatch.setattr(study_run, "attempt", lambda job, *_, **__: asked.append(job) or True)
    assert study_run._with_what_is_there(whole, place, {}, print) == [*left] and not asked, "a draw is not there yet"
    place.file("failed", draw.name).write_text(json.dumps({"said": "no space left on device"}))
    assert study_run._with_what_is_there(whole, place, {}, print) == [draw.name, student.name]
    assert [job.parameters["only"] for job in asked] == [["b-s0/KD"]]


def test_a_table_that_a_notebook_over_all_runs_wrote_is_missed(place, executed):
    job = Job("05_objectives", Path("/notebooks/05_objectives.ipynb"), {"runs": str(place.runs), "only": []})
    place.out.mkdir(parents=True, exist_ok=True)
    for file in (place.executed(job), place.rendered(job), place.out / "before_after.csv"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    then = {"scheme": jobs.sources.SCHEME, **jobs._what(job, place), "before": {}, "files": {}}
    place.file("done", job.name).write_text(json.dumps({**then, "wrote": ["before_after.csv"]}))
    assert jobs.reason(job, place) is None
    (place.out / "before_after.csv").unlink()
    assert jobs.reason(job, place) == "its before_after.csv is gone"


@pytest.mark.parametrize(
    ("reference", "left"), [("KD", ""), ("CE", "CE"), ({"KD": "CE", "CE": "KD", "RKD": "CE"}, {"RKD": "CE"})]
)
def test_nobody_is_compared_with_a_student_that_is_not_there(place, reference, left):
    runs = ["a-s0/CE", "a-s0/KD", "b-s0/KD", "b-s0/RKD"]
    parameters = {"runs": str(place.runs), "only": runs, "reference": reference, "answer": ["KD: WAKD - last"]}
    page = {"title": "T", "also": {}, "listed": False, "notebooks": []}
    after = ("a-s0-CE", "a-s0-KD", "b-s0-KD", "b-s0-RKD", jobs.PAIRS)
    whole = Job("03_compare", Path("/notebooks/03_compare.ipynb"), parameters, after, page=page)
    assert jobs.present(whole, {"a-s0-KD": "Diverged"}).parameters["reference"] == reference, (
        "another run of it is there"
    )
    part = jobs.present(whole, {"a-s0-KD": "Diverged", "b-s0-KD": "Diverged", jobs.PAIRS: "failed"}).parameters
    assert part["reference"] == left and part["answer"] == []


def test_what_named_pairs_wrote_is_a_result_that_the_comparison_waits_for(place, executed):
    tables = place.out
    tables.mkdir(parents=True, exist_ok=True)
    parameters = {"runs": str(place.runs), "only": [], "tables": str(tables)}
    job = Job(jobs.PAIRS, Path("/notebooks/07_named_pairs.ipynb"), parameters)
    none, file = jobs._result(job), tables / "named_pairs.csv"
    file.write_text("label,mean\n")
    first = jobs._result(job)
    file.write_text("label,mean\na,1\n")
    assert len({none, first, jobs._result(job)}) == 3
    assert [*jobs._files(job, place)] == ["named_pairs.csv"], "and it is missed when it is gone"


@pytest.mark.parametrize("name", ["a{x}-s0-KD", "a<b>", "two\nlines", "50% off", "plain name.1", "%7B"])
def test_the_engine_sees_names_without_wildcards_and_no_two_alike(name, place):
    seen = jobs.for_engine(name)
    assert not set(seen) & set("{}<>\n") and (seen == name) == (name in ("50% off", "plain name.1"))
    assert len({jobs.for_engine(n) for n in ("{", "%7B", "%257B")}) == 3
    job = Job(name, Path("x.ipynb"), {}, ("a{x}",))
    jobs.describe([job], place)
    (file,) = (place.engine / "jobs").iterdir()
    assert jobs.read(file) == (job, place)
    assert json.loads(file.read_text())["stamps"] == ["a%7Bx%7D"]


def test_the_engine_plans_jobs_of_domains_with_braces(place):
    pytest.importorskip("snakemake", reason="snakemake is not installed")
    made = [Job(f"{d}-s0-KD", Path("x.ipynb"), {}) for d in ("a{x}", "a<b>", "two\nlines", "50% off", "it's")]
    waits = Job("searched-s0-KD", Path("x.ipynb"), {}, open=True)
    jobs.describe([*made, waits, Job("03_compare", Path("x.ipynb"), {}, tuple(job.name for job in made))], place)
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(WORKFLOW / "Snakefile")]
    command += ["--directory", str(place.engine), "--config", "threads=1", "--cores", "1", "--nolock"]
    seen = subprocess.run(command, capture_output=True, text=True)
    assert seen.returncode == 0, seen.stderr
    assert re.search(r"^notebook +6$", seen.stdout + seen.stderr, re.MULTILINE)


def test_another_teacher_is_another_recording_and_the_old_one_is_kept(place, teacher, student, executed):
    do(place, teacher, student)
    other = replace(teacher, parameters={**teacher.parameters, "deploy": "wakd"})
    do(place, other)
    assert (
        jobs.reason(student, place) == "result of teacher changed" and jobs.retrained(student, place) == "the teacher"
    )
    said = []
    jobs.perform(student, place, say=said.append)
    (kept,) = place.runs.glob("kd.before-*")
    assert (kept / "settings.json").is_file() and jobs.retrained(student, place) == ""
    assert said == [f"kd: kd was recorded otherwise (the teacher); it is kept as {kept.name}"]


def test_a_teacher_that_is_added_to_who_comes_after_it_is_another_recording(place, teacher, student, executed):
    alone = replace(student, parameters={**student.parameters, "teacher": None})
    do(place, teacher, alone)
    assert jobs.retrained(alone, place) == "" and jobs.retrained(student, place) == "taught"
    file = place.file("began", alone.name)
    file.write_text(file.read_text().replace('"taught": false', '"of": "a version that did not tell"'))
    assert jobs.retrained(student, place) == ""


def test_other_code_records_again_unless_the_recording_is_accepted(place, teacher, executed):
    do(place, teacher)
    other = replace(teacher, training={"views": "2"})
    assert jobs.retrained(other, place) == "code of views"
    jobs.begin(other, place)  # --keep-recordings
    assert jobs.retrained(other, place) == "" and jobs.reason(other, place) == "code of views changed"
    do(place, other)
    assert not list(place.runs.glob("teacher.before-*")) and jobs.reason(other, place) is None


@pytest.mark.parametrize(
    "change", [{"strategies": ["swad"]}, {"deploy": {"name": "ema"}}], ids=["strategies", "deploy"]
)
def test_other_strategies_keep_a_finished_recording_and_put_an_unfinished_one_aside(
    place, teacher, student, executed, change
):
    do(place, teacher)
    other = replace(teacher, parameters={**teacher.parameters, "strategies": ["last", "swad"]})
    assert jobs.retrained(other, place) == ""
    partial = files.recording_folder(student.run)
    jobs.begin(student, place)
    partial.mkdir(parents=True)
    do(place, student)
    assert partial.exists()  # training continues it; the stand-in does not
    place.file("done", "kd").unlink()
    do(place, replace(student, parameters={**student.parameters, **change}))
    assert len(list(place.runs.glob("kd.before-*.recording"))) == 1
    assert not partial.exists() and student.run.exists()


def test_describing_touches_only_what_changes(place, teacher, student):
    jobs.describe([teacher, student], place)
    before = {file.name: file.stat().st_mtime_ns for file in (place.engine / "jobs").iterdir()}
    jobs.describe([replace(teacher, parameters={**teacher.parameters, "steps": 7}), student], place)
    after = {file.name: file.stat().st_mtime_ns for file in (place.engine / "jobs").iterdir()}
    assert before["kd.json"] == after["kd.json"] and before["teacher.json"] < after["teacher.json"]
    jobs.describe([student], place)
    assert [file.name for file in (place.engine / "jobs").iterdir()] == ["kd.json"]
    assert jobs.read(place.file("jobs", "kd")) == (student, place)


def hold(path, taken):
    with files.locked(Path(path), owner="a test"):
        taken.set()
        time.sleep(60)


@pytest.fixture
def elsewhere():
    """Another process takes a lock, until it is killed."""
    context, started = multiprocessing.get_context("fork"), []

    def take(path):
        taken = context.Event()
        process = context.Process(target=hold, args=(str(path), taken))
        process.start()
        assert taken.wait(20)
        started.append(process)
        return process

    yield take
    for process in started:
        process.kill()
        process.join()


def test_a_lock_says_whose_it_is_and_ends_with_its_process(place, elsewhere):
    path = place.engine / "lock"
    assert files.holder(path) is None
    process = elsewhere(path)
    assert files.holder(path).startswith(f"process {process.pid} on ") and ", a test, since" in files.holder(path)
    with pytest.raises(files.Held, match=f"process {process.pid} on "), files.locked(path):
        pass
    process.kill()
    process.join()
    with files.locked(path):
        assert str(os.getpid()) in path.read_text()


def test_who_asks_for_the_holder_of_a_lock_turns_nobody_away(place):
    path = place.engine / "lock"
    with files.locked(path):
        pass
    with open(path, "a+") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)  # what ``holder`` does, for longer
        assert files.holder(path) is None  # another that asks is no holder
        with pytest.raises(files.Held), files.locked(path):  # nobody waits for ever
            pass
        threading.Timer(0.05, fcntl.flock, (asking, fcntl.LOCK_UN)).start()
        with files.locked(path):
            assert files.holder(path).startswith(f"process {os.getpid()} on ")


@contextlib.contextmanager
def who_may_only_read():
    """What follows is done by a user who owns nothing here; by this one unless it is root, who may write everything."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_who_may_only_read_a_lock_sees_who_holds_it(elsewhere, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the folders above are closed to others
    process = elsewhere(tmp_path / "lock")
    tmp_path.chmod(0o755), Path("lock").chmod(0o444)
    with who_may_only_read():
        assert files.holder(Path("lock")).startswith(f"process {process.pid} on ")
    process.kill()
    process.join()
    with who_may_only_read():
        assert files.holder(Path("lock")) is None and files.holder(Path("none")) is None


def test_a_job_at_which_another_process_works_is_waited_for(place, teacher, executed, elsewhere):
    process = elsewhere(place.file("locks", "teacher"))
    said = []

    def say(line):
        said.append(line)
        process.kill()

    jobs.perform(teacher, place, say=say)
    assert (
        len(said) == 1 and said[0].startswith(f"waiting for teacher: process {process.pid} on ") and len(executed) == 1
    )


def test_jobs_that_train_get_a_device_each(place, teacher, elsewhere, monkeypatch):
    held = contextlib.ExitStack()
    with jobs.one_gpu(place, teacher) as without:
        assert without == {}
    monkeypatch.setenv("WAKD_GPUS", "0,1")
    with jobs.one_gpu(place, teacher) as first:
        assert first == {"CUDA_VISIBLE_DEVICES": "0"}
    elsewhere(place.engine / "gpu-0")
    with jobs.one_gpu(place, teacher) as second:
        assert second == {"CUDA_VISIBLE_DEVICES": "1"}
    looking = [replace(teacher, name=f"landscape-{i}", parameters={"run": "x"}) for i in range(9)]
    spread = [held.enter_context(jobs.one_gpu(place, one))["CUDA_VISIBLE_DEVICES"] for one in looking]
    assert set(spread) == {"0", "1"}, "those that only look wait for nobody, and not all on one device"
    monkeypatch.setenv("WAKD_GPUS", "0,0")
    with jobs.one_gpu(place, teacher) as shared:
        assert shared == {"CUDA_VISIBLE_DEVICES": "0"}
        with pytest.raises(files.Held), files.locked(place.engine / "gpu-1"):
            pass


# ---- what is left of what is no more


def test_an_explorer_of_a_run_that_has_no_window_map_any_more_is_gone(place, student):
    page = place.out / "explorer" / "kd.html"
    page.parent.mkdir()
    page.write_text("of an earlier training")
    jobs._explorer(replace(student, name="landscape-kd", parameters={"run": "kd"}), place)
    assert page.exists()
    jobs._explorer(student, place)
    assert not page.exists()


def test_a_comparison_takes_away_what_it_wrote_and_knows_what_others_left(place, monkeypatch):
    shown, compare = [], Job("03_compare", Path("03_compare.ipynb"), {"runs": "", "only": ["kd"]}, page={"title": "A"})
    also = [Job(name, Path(f"{name}.ipynb"), {"runs": "", "only": ["kd"]}) for name in ("05", "06")]
    writes = {"05": ["a.csv"], "06": ["b.csv"], "03_compare": ["c.csv", "figures/kd.svg", "figures/ce.svg"]}

    def execute(source, out, *_, **__):
        for name in writes[out.stem]:
            (place.out / name).parent.mkdir(exist_ok=True)
            (place.out / name).write_text("0")

    monkeypatch.setattr(notebook, "execute", execute)
    monkeypatch.setattr(report, "render", lambda *_, **__: None)
    monkeypatch.setattr(jobs, "_what", lambda *_: {})
    wrote = jobs._wrote
    monkeypatch.setattr(
        jobs, "_publish", lambda job, place, say, own: shown.append(wrote(place, without=job, planned=False))
    )
    jobs.describe([*also, compare], place)
    for job in (*also, compare):
        jobs._do(job, place, "new", None, print, print)
    assert wrote(place, without=compare) == {"a.csv", "b.csv"} and shown == [set()]
    writes["03_compare"].remove("figures/ce.svg")
    jobs.describe([also[1], compare], place)
    jobs._do(compare, place, "new", None, print, print)
    assert wrote(place, without=compare) == {"b.csv"} and shown[1] == {"a.csv"}
    assert {f.name for f in place.out.rglob("*.*") if f.is_file()} == {"a.csv", "b.csv", "c.csv", "kd.svg"}


def test_a_table_that_a_missing_notebook_wrote_before_is_left_where_it_is_and_not_linked(place, monkeypatch):
    page = {"title": "A", "also": {}, "listed": False, "notebooks": []}
    parameters = {"runs": "", "only": ["kd"]}
    compare = Job("03_compare", Path("03_compare.ipynb"), parameters, ("05", "06"), page=page)
    jobs.describe([*(Job(name, Path(f"{name}.ipynb"), parameters) for name in ("05", "06")), compare], place)
    wrote = {"05": ["a.csv", "both.csv"], "06": ["b.csv", "both.csv"], "03_compare": ["a.csv", "c.csv"]}
    for name, files_of in wrote.items():
        place.file("done", name).write_text(json.dumps({"wrote": files_of}))
        for file in files_of:
            (place.out / file).write_text("0")
    shown = []
    monkeypatch.setattr(notebook, "execute", lambda *_, **__: (place.out / "c.csv").write_text("1"))
    monkeypatch.setattr("wakd_kit.reporting.pages.publish", lambda *_, left, **__: shown.append({*left}) or "")
    monkeypatch.setattr(jobs, "_what", lambda *_: {})
    jobs._do(jobs.present(compare, {"05": "failed"}), place, "new", None, print, print)
    jobs._do(compare, place, "new", None, print, print)
    assert shown == [{"a.csv"}, set()] and (place.out / "a.csv").exists()


def test_notebooks_over_all_runs_that_start_at_once_claim_only_what_each_wrote(place, monkeypatch):
    both = [Job(name, Path(f"{name}.ipynb"), {"runs": "", "only": ["kd"]}) for name in ("05", "06")]
    began, said = threading.Barrier(2), []

    def execute(source, out, *_, **__):
        with contextlib.suppress(threading.BrokenBarrierError):  # the other waits for its turn
            began.wait(0.5)
        (place.out / f"{out.stem}.csv").write_text("0")
        with contextlib.suppress(threading.BrokenBarrierError):
            began.wait(0.5)

    monkeypatch.setattr(notebook, "execute", execute)
    monkeypatch.setattr(report, "render", lambda *_, **__: None)
    jobs.describe(both, place)
    threads = [threading.Thread(target=jobs.perform, args=(job, place), kwargs={"say": said.append}) for job in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [jobs.done(job, place)["wrote"] for job in both] == [["05.csv"], ["06.csv"]]
    assert len(said) == 1 and re.match(r"0[56] waits for process \d+ on .*, 0[56], since", said[0])
