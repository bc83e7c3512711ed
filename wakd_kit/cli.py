"""The command line. Everything it does is a call of the package.

wakd report STUDY                      train what is missing, render every notebook, write the page; --dry-run says what
wakd status STUDY                      what of it is done, running, failed or waiting, and the time left; --failed says why
wakd compare STUDY STUDY               two studies of one design side by side, paired by target and seed
wakd train NAME=VALUE ...              train one student and record its trajectory
wakd pretrain NAME IMAGES              pretrain a small backbone on a folder of classes; --to FOLDER writes its weights
wakd notebook NB OUT -p name=value     execute one notebook with checked parameters, and render it
wakd average RUN --strategy NAME ...   write an averaged student, --export FILE.safetensors, .onnx or a folder for timm
wakd landscape RUN [NAME=VALUE ...]    draw the loss around a recorded run: a page and figures as PDF
wakd explore RUN|STUDY                 write the page that moves a window over a recorded run; --open shows it
wakd list strategies|objectives|methods|domains|studies|weights
wakd doctor [RUN]                      what a run folder holds, or the cache, what it takes, what can be dropped
wakd log RUNS --tensorboard FOLDER     the curves of recorded runs as TensorBoard's event files, or --wandb PROJECT
wakd data get NAME [--to PATH]         fetch a benchmark: pacs, vlcs, officehome, terra, domainnet, celeba, spawrious_o2o_easy,
                                       ..._medium or ..._hard; lessons: train their runs
wakd data check PATH                   count, read and compare every image; exit status 1 if not usable
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from . import plugins
from .data.catalog import BENCHMARKS
from .docstrings import sentence_of
from .files import Held, Stopped, made, path_of, recording_folder, room_for
from .names import UnknownName, did_you_mean, own_version
from .reporting.parameters import Landscape, Student, make, parse
from .runs.settings import NAMES
from .study.chains import ROLES, each_name

# Each command imports what it calls when it is called: torch, timm and papermill take seconds, and `wakd data` needs none.


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status. Anything a user can mend is one sentence on stderr and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot write a letter gets its number: caf\\xe9
            stream.reconfigure(errors="backslashreplace")
    given = command_line().parse_args(arguments)
    given.status = 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda said, *_: print(f"wakd {given.command}: {said}", file=sys.stderr)
            plugins.use(*getattr(given, "plugin", ()))
            given.call(given)
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, such as head, has enough; and nothing is written at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, UnknownName, OSError, ImportError, Stopped, Held) as error:
        print(f"wakd {given.command}: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:  # torch's and the system's: no memory left, no such device
        print(f"wakd {given.command}: {type(error).__name__}: {error} ({_place(error)})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nwakd {given.command}: interrupted; what is recorded is kept.", file=sys.stderr)
        return 130
    return given.status


def command_line() -> argparse.ArgumentParser:
    """Every command with its arguments; what it parses has ``call``, a function of it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="wakd", description=__doc__, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"wakd_kit {own_version()}")
    rooms = {"": parser.add_subparsers(dest="command", required=True)}
    for name, (call, arguments, about) in COMMANDS.items():
        group, _, verb = name.rpartition(" ")
        if group not in rooms:
            above = rooms[""].add_parser(group, help=GROUPS[group])
            rooms[group] = above.add_subparsers(dest="verb", required=True)
        own = rooms[group].add_parser(verb, help=call.__doc__, description=about, formatter_class=raw)
        for names, settings in arguments:
            own.add_argument(*names, **settings)
        own.set_defaults(call=call)
    return parser


COMMANDS: dict[str, tuple] = {}  # {name: (function of what was parsed, arguments, description)}
GROUPS = {"data": "fetch a published benchmark, or check a folder of images"}


def command(name: str, *arguments: tuple, about: str | None = None) -> Callable:
    """Decorator: the command ``name`` calls this function, whose docstring is its help. Returns it unchanged."""

    def register(call: Callable) -> Callable:
        COMMANDS[name] = call, arguments, about
        return call

    return register


def argument(*names: str, **settings) -> tuple:
    """An argument of a command, as argparse takes it."""
    return names, settings


def _path(given: str) -> Path:
    """``path_of``, for argparse: it would say no more than "invalid" of a ``ValueError``."""
    try:
        return path_of(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def _defaults(cls: type, *, without: tuple[str, ...] = ()) -> str:
    """The settings of a parameter class with their sentences, read off it: making one would check objectives, which imports torch."""
    given = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(cls)}
    lines = ["Settings with their defaults, values as JSON or plain text:"]
    for name, value in given.items():
        if name not in without:
            lines.append(f"  {name}={json.dumps(value)}")
            lines += textwrap.wrap(
                sentence_of([cls], name).replace("``", ""), 96, initial_indent="      ", subsequent_indent="      "
            )
    return "\n".join(lines)


# settings of train that neither a study nor `wakd train` has; strategies are what a notebook declares
IN_PYTHON = [name for name in NAMES if name not in {"declare", *(f.name for f in fields(Student))}]
BESIDE = (
    "beside a study file of yours; of a shipped study in the checkout, or where you stand when installed from a wheel"
)
OF_A_STUDY = (
    argument("study", help="a study's name under reports/, or a YAML file"),
    argument("--out", type=_path, help=f"report folder, default reports/<name> {BESIDE}"),
    argument("--runs", type=_path, help=f"where recordings go, default runs/<name> {BESIDE}"),
)
PLUGIN = argument(
    "--plugin",
    action="append",
    default=[],
    metavar="FILE.py",
    help="a file or module of yours that declares objectives, strategies, models or benchmarks; may come twice",
)
RUN = argument("run", type=_path, help="a run's folder")
SETTINGS = argument("settings", nargs="*", metavar="NAME=VALUE")


@command(
    "report",
    *OF_A_STUDY,
    argument("--cores", type=int, metavar="N", help="processor cores to use, default all"),
    argument(
        "--gpus",
        type=int,
        metavar="N",
        help="notebooks that train on an accelerator at one time, default one on each there is; 0: none",
    ),
    argument("--profile", help="a snakemake profile: slurm, or a folder of your own"),
    argument("--dry-run", action="store_true", help="say what would be done and why, and do nothing"),
    argument(
        "--keep-recordings", action="store_true", help="accept those made by other code; not those of other settings"
    ),
)
def _report(given: argparse.Namespace) -> None:
    """run a study and write its page"""
    from .study import run as study

    settings = ("out", "runs", "keep_recordings", "cores", "gpus", "profile")
    options = {name: getattr(given, name) for name in settings}
    if given.dry_run:
        print("\n".join(study.planned(given.study, **options)))
        return
    study.run_study(given.study, **options, say=lambda line: print(line, flush=True))


@command(
    "status",
    *OF_A_STUDY,
    argument(
        "--failed", action="store_true", help="all that is known of what failed: why, its page, the end of its log"
    ),
    argument("--json", action="store_true", help="as JSON, for programs"),
    about="As it was planned last, from its folders. Exit status: 0 all is done, 1 something failed, 3 something is to do.",
)
def _status(given: argparse.Namespace) -> None:
    """what of a study is done, running, failed or waiting"""
    from .study import status

    place = status.place_of(given.study, given.out, given.runs)
    name, rows = status.name_of(status.file_of(given.study)), status.rows_of(place)
    said = status.sentence_of(name, place, rows), status.changed_since(given.study, place)
    if given.json:
        print(
            json.dumps(
                {"study": name, "notebooks": rows, "said": said[0], "out": str(place.out), "runs": str(place.runs)}
            )
        )
    else:
        lines = status.failed_lines(rows, place) if given.failed else status.lines_of(rows)
        print("\n".join([*lines, *filter(None, said)]))
    given.status = status.exit_status(rows)


@command(
    "compare",
    argument("first", help="a study's name or YAML file, or a folder of recordings"),
    argument("second", help="another one of the same images: its differences to the first are shown"),
    argument("--out", type=_path, metavar="FOLDER", help="the page's folder, default compared/<first>-<second>"),
)
def _compare(given: argparse.Namespace) -> None:
    """two studies of one design side by side, paired by target and seed"""
    from .reporting.compare import compare
    from .results.collect import collect
    from .study import status

    both = [status.recorded(which) for which in (given.first, given.second)]
    if both[0][1].resolve() == both[1][1].resolve():
        raise ValueError(f"{given.first} and {given.second} are the same recordings.")
    studies = dict(zip(_told_apart(both), (collect(runs, **asked) for _, runs, asked in both)))
    page, said = compare(studies, made(given.out or Path("compared") / "-".join(studies), "--out"))
    print("\n".join([*said, str(page)]))


def _told_apart(studies: Sequence[tuple[str, Path, dict]]) -> list[str]:
    """The names of two studies, with the first folder in which their places differ where they are called the same."""
    names, places = [name for name, *_ in studies], [runs.resolve().parts for _, runs, _ in studies]
    if names[0] != names[1]:
        return names
    own = [next((part for part, other in zip(a, (*b, *a)) if part != other), "") for a, b in (places, places[::-1])]
    return [f"{name} ({part})" if part else name for name, part in zip(names, own)]


@command(
    "train",
    SETTINGS,
    PLUGIN,
    about=f"{_defaults(Student)}\nWithout a teacher, objectives are cross-entropy by default.\n"
    f"In Python alone, settings of wk.train: {', '.join(sorted([*IN_PYTHON, 'device']))}.",
)
def _train(given: argparse.Namespace) -> None:
    """train one student and record its trajectory"""
    from .data.domains import load_domains
    from .runs.train import train

    settings = _settings(given.settings, Student)
    alone = not settings.get("teacher") and "objectives" not in settings
    if alone:
        settings["objectives"] = [{"name": "ce"}]
    p = make(Student, settings)
    domains = load_domains(p.benchmark, **p.data())
    split = p.split(domains)
    student = p.begun(split)
    if alone:
        print("No teacher was given, so it is trained with cross-entropy.")
    if not p.save_to or not (path_of(p.save_to) / "settings.json").is_file():
        print(_what_it_takes(student, p))
    run = train(student, split, teacher=p.taught_by(), **p.training(), progress=sys.stderr.isatty())
    print(run.summary())
    print(run.folder)


def _what_it_takes(student, p: Student) -> str:
    """One sentence, from the settings alone."""
    from .runs.train import size_of_recording

    size = size_of_recording(student, p.settings())
    taught = f" What its teacher gives takes at most {size['teacher'] / 1e6:.1f} MB of the cache."
    return (
        f"Recording {size['segments']} segments, {size['stored']} stored, takes at most {size['disk'] / 1e6:.1f} MB of disk and "
        f"{size['memory'] / 1e6:.1f} MB of memory.{taught if size['teacher'] else ''}"
    )


@command(
    "pretrain",
    argument("name", help="a recipe such as resnet10t_w16.px64: a small model and the size of its images"),
    argument("images", help="class/images: a folder, a tar or a zip"),
    argument("settings", nargs="*", metavar="NAME=VALUE", help="other settings of train, such as steps=20"),
    PLUGIN,
    argument("--to", type=_path, metavar="FOLDER", help="write weights in half precision and their card there"),
    argument("--data", default="not stated", metavar="TEXT", help="what the images are, for the card"),
    argument("--licence", default="not stated", metavar="TEXT", help="their terms, for the card"),
)
def _pretrain(given: argparse.Namespace) -> None:
    """pretrain a small backbone on a folder or an archive of class folders"""
    from .runs.pretrain import pretrain, write_weights

    run = pretrain(given.name, given.images, **{"progress": sys.stderr.isatty(), **_settings(given.settings)})
    print(run.summary())
    print(f"{run.folder}: {run.source_curves.val_accuracy[-1]:.1%} of held-out images")
    if given.to:
        print(write_weights(run, given.name, given.to, data=given.data, licence=given.licence)["about"])


@command(
    "notebook",
    argument("notebook", help="a notebook's file, or its name under notebooks/ such as 02_distill"),
    argument("out", type=_path, help="the executed copy; its page is written beside it"),
    argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="JSON, or plain text; paths are those of where you stand",
    ),
    PLUGIN,
)
def _notebook(given: argparse.Namespace) -> None:
    """execute one notebook with checked parameters and render it"""
    from .reporting import execute as notebook
    from .reporting import render as report
    from .study.places import INSTALLED, NOTEBOOKS, home

    shipped = NOTEBOOKS / path_of(f"{given.notebook}.ipynb")
    source = shipped if shipped.is_file() else path_of(given.notebook)
    if not source.is_file() and "." not in source.name:
        raise UnknownName(did_you_mean("notebook", given.notebook, (file.stem for file in NOTEBOOKS.glob("*.ipynb"))))
    settings = absolute(_settings(given.parameter, notebook.described_by(source) or object))
    settings = notebook.complete(source, settings)
    if INSTALLED and source == shipped:  # whose own paths are meant from notebooks/ beside reports/ and runs/
        settings = absolute(settings, home() / "notebooks")
    _refuse_without_teacher(settings, source.parent)
    executed = notebook.execute(source, given.out, settings, cwd=source.parent, checked=True)
    print(report.render(executed, executed.with_suffix(".html")))


def _refuse_without_teacher(settings: dict, folder: Path) -> None:
    """Raises ``FileNotFoundError`` with the command that trains the teacher which a notebook would look for in vain."""
    teacher = settings.get("teacher")
    if isinstance(teacher, str) and not any(
        (folder / path_of(teacher) / name).is_file() for name in ("settings.json", "")
    ):
        place = os.path.relpath(folder / path_of(teacher))
        alike = ("benchmark", "image_size", "target", "seed")
        given = {name: settings[name] for name in alike if settings.get(name) is not None} | {"save_to": place}
        words = " ".join(shlex.join(["-p", f"{name}={value}"]) for name, value in given.items())
        raise FileNotFoundError(
            f"No teacher at {place}. One is trained by: wakd notebook 01_train_teacher teacher.ipynb {words}"
        )


# parameters that are
PATHS = ("save_to", "teacher", "start", "refit", "weights", "run", "runs", "tables", "figures", "mask")


def absolute(settings: dict, folder: str | os.PathLike = "") -> dict:
    """Settings whose paths are made whole, by default against where one stands: a kernel works in its notebook's folder."""

    from .study.reading import placed, with_files

    def whole(path: str) -> str:
        return os.path.abspath(folder / path_of(path))

    found = {
        name: whole(value) for name, value in settings.items() if name in PATHS and value and isinstance(value, str)
    }
    found |= {"benchmark": placed(settings["benchmark"], whole)} if "benchmark" in settings else {}
    found |= {"objectives": with_files(settings["objectives"], whole)} if "objectives" in settings else {}
    found |= {role: each_name(settings[role], whole) for role in ROLES if isinstance(settings.get(role), dict)}
    found |= {"others": list(map(whole, settings["others"]))} if isinstance(settings.get("others"), list) else {}
    return settings | found


def _settings(words: list[str], cls: type = object) -> dict[str, object]:
    """Words name=value as a dictionary: each value typed by the field of ``cls`` that it is for, JSON or text without one."""
    found = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise ValueError(f"A parameter is written name=value; got {word!r}.")
        if name in found:
            raise ValueError(f"{name} is given twice; leave one of them out, {word!r} or the one before.")
        found[name] = parse(cls, name, value)
    return found


@command(
    "average",
    RUN,
    argument(
        "--strategy", nargs="+", required=True, metavar=("NAME", "SETTING=VALUE"), help="such as: swad n_tolerance=4"
    ),
    argument(
        "--export",
        type=_path,
        required=True,
        metavar="FILE",
        help="a .safetensors or .onnx file, or a folder for timm and its hub",
    ),
    argument("--no-scores", action="store_true", help="do not evaluate it for the card"),
    PLUGIN,
)
def _average(given: argparse.Namespace) -> None:
    """average a recorded run and write the student for use elsewhere, with a card"""
    from .evaluation.choose import choose
    from .evaluation.export import export
    from .runs.run import load_run

    run = load_run(given.run)
    _refuse_own(
        run, 'wk.export(run, wk.choose(run, ["wakd"])["wakd"], FILE) writes an average, as .safetensors or .onnx'
    )
    name, *settings = given.strategy
    if "name" in (own := _settings(settings)):
        raise ValueError(f"--strategy says which strategy, {name}; name={own['name']} is no setting of one.")
    wanted = {"name": name, "label": name, **own}
    (coefficients,) = choose(run, [wanted]).values()
    card = export(run, coefficients, given.export, scores=not given.no_scores)
    print(f"{given.export}: {coefficients.note}\n{card}")


@command(
    "landscape",
    RUN,
    SETTINGS,
    argument("-o", "--out", type=_path, help="the executed notebook, default RUN/landscape/04_landscape.ipynb"),
    PLUGIN,
    about=_defaults(Landscape, without=("run",)),
)
def _landscape(given: argparse.Namespace) -> None:
    """draw the loss around a recorded run"""
    from .reporting import execute as notebook
    from .reporting import render as report
    from .runs.run import load_run
    from .study.places import NOTEBOOKS

    run = load_run(given.run)
    folder = run.folder.resolve()  # the notebook runs in a folder of its own
    settings = absolute(_settings(given.settings, Landscape)) | {"run": str(folder)}
    if not (run.choices or settings.get("strategies")):
        declared = [spec for spec in run.settings["declare"] if spec["name"] != "last"]
        settings["strategies"] = [{"name": settings.get("baseline", "last")}, *declared]
        print(
            f"{run.name} was not evaluated yet: {', '.join(spec['name'] for spec in settings['strategies'])} are now."
        )
    out = given.out or folder / "landscape" / "04_landscape.ipynb"
    size = make(Landscape, settings).size  # what does not fit is said before what is going to be done
    print(f"A plane of {size} x {size} points around {run.name}: each is evaluated on every domain.", flush=True)
    executed = notebook.execute(NOTEBOOKS / "04_landscape.ipynb", out, settings, cwd=NOTEBOOKS)
    print(report.render(executed, executed.with_suffix(".html")))


@command(
    "explore",
    argument("which", metavar="RUN|STUDY", help="a run's folder, a folder of runs, or a study by name or YAML file"),
    argument(
        "-o",
        "--out",
        type=_path,
        help="the page, default explorer.html in the run's folder; of several, their folder",
    ),
    argument(
        "--grid", type=int, default=10, metavar="N", help="segments a side of the window map, where a run has none"
    ),
    argument("--hidden", action="store_true", help="cover what looks at the unseen domain until it is asked for"),
    argument("--open", action="store_true", help="show the first page in the browser"),
)
def _explore(given: argparse.Namespace) -> None:
    """write the explorer's page of a run, or of every run of a study that has a window map"""
    from .explorer.pages import write_page, write_pages
    from .runs.run import load_run
    from .study.places import SUFFIXES, StudyProblem, file_of
    from .study.status import place_of

    runs, out = path_of(given.which), given.out
    if (runs / "settings.json").is_file():
        _map_of(runs, given.grid)
        pages = [write_page(runs, out or runs / "explorer.html", hidden=given.hidden)]
    else:
        if not runs.is_dir():
            if runs.suffix not in SUFFIXES and (len(runs.parts) > 1 or recording_folder(runs).is_dir()):
                load_run(runs)  # which says why it cannot be
            try:
                file_of(given.which)
            except StudyProblem as error:
                raise StudyProblem(f"No run at {runs}, and no study: {error}") from None
            place = place_of(given.which)
            runs, out = place.runs, out or place.out / "explorer"
            if not runs.is_dir():
                raise StudyProblem(f"{given.which} was not run yet: nothing is at {runs}.")
        pages = list(write_pages(runs, out or runs / "explorer", hidden=given.hidden).values())
    if not pages:
        raise FileNotFoundError(
            f"No evaluated run with a window map in or below {runs}. Give one run's folder, and its map is computed; a study "
            "asks for maps with window_map: {grid: 7, seeds: [0]}."
        )
    print(*pages, sep="\n")
    if given.open:
        import webbrowser

        webbrowser.open(pages[0].absolute().as_uri())


def _map_of(folder: Path, grid: int) -> None:
    """The window map that a page looks its numbers up in: computed, and kept with the run, where there is none."""
    from .evaluation.windows import window_map
    from .explorer.answers import Board
    from .runs.run import load_run

    run = load_run(folder)
    Board(run)  # refuses what no page can show before anything is computed
    if not len(run.window_map):
        _refuse_own(run, "wk.window_map(run) and then wakd_kit.explorer.pages.page(run, FILE) make its page")
        print(f"{run.name} has no window map yet: its windows are averaged and evaluated, {grid} segments a side.")
        window_map(run, grid=grid)


def _refuse_own(run, instead: str) -> None:
    """Raises ``RunProblem`` with what to do in Python where the student is a module that no command can build."""
    from .runs.store import RunProblem

    student = run.settings["student"]
    if "classes" not in student:
        raise RunProblem(
            f"{run.name} was trained on a model of your own ({student['name']}), which no command can build: in Python "
            f"run = wk.load_run({str(run.folder)!r}, template=model) takes one built the same way, and {instead}."
        )


def _phrases(registry) -> list[str]:
    return [f"{name:15} {(registry.get(name).__doc__ or '').strip().splitlines()[0]}" for name in registry]


def _strategies() -> list[str]:
    from .averaging import strategies
    from .averaging.about import ABOUT

    lines = []
    for name, phrase in zip(strategies, _phrases(strategies)):
        known = ABOUT.get(name)  # one's own has none
        lines += [phrase, f"{'':16}exact: {known.exact}; cost: {known.cost}; {known.source}"] if known else [phrase]
    return lines


def _objectives() -> list[str]:
    from .objectives import objectives

    found = sorted(((name, objectives.about(name)) for name in objectives), key=lambda pair: pair[1].kind)
    return [_objective_line(name, about) for name, about in found]


def _objective_line(name: str, about) -> str:
    deploys = "; the student keeps a part of it" if about.tail else ""
    needs = f"needs {' '.join(sorted(about.needs))}"
    return f"{name:15} {about.kind:15}{needs:44}weight {about.weight:<8g}{about.source}{deploys}"


def _domains() -> list[str]:
    from .data.domains import benchmarks

    return _phrases(benchmarks)


def _studies() -> list[str]:
    from .study.places import REPORTS
    from .study.specification import load_study

    return _side_by_side({file.stem: load_study(file).title for file in sorted(REPORTS.glob("*.yaml"))})


def _weights() -> list[str]:
    from .models.weights import PACKAGED, shipped

    found = {name: f"{card['about']} ({card['data']['licence']})" for name, card in shipped().items()}
    found |= {
        name: f"{known.data}, published top-1 {known.top1} % at {known.size} px; "
        f"{'installed' if known.path else known.command} ({known.licence})"
        for name, known in PACKAGED.items()
    }
    return _side_by_side(found)


def _side_by_side(said: Mapping[str, str]) -> list[str]:
    """Names in a column as wide as the longest, and what is said of each."""
    return [f"{name:{max(map(len, said)) + 2}}{words}" for name, words in said.items()]


def _methods(name: str | None = None) -> list[str]:
    from .study.methods import lines_of

    return lines_of(name)


LISTS = {
    "strategies": _strategies,
    "objectives": _objectives,
    "methods": _methods,
    "domains": _domains,
    "studies": _studies,
    "weights": _weights,
}


@command(
    "list",
    argument("what", choices=tuple(LISTS)),
    argument("name", nargs="?", help="of methods: one of them, with a study file that runs it"),
    PLUGIN,
)
def _list(given: argparse.Namespace) -> None:
    """what there is"""
    if given.name is not None and given.what != "methods":
        raise ValueError(
            f"wakd list {given.what} takes no name; got {given.name!r}. One method is told by: wakd list methods NAME"
        )
    print("\n".join(LISTS[given.what](*[given.name] * (given.name is not None))))


@command(
    "doctor",
    argument("run", type=_path, nargs="?", help="a run's folder; without one, the cache"),
    argument("--drop-teachers", action="store_true", help="delete what teachers gave from the cache"),
)
def _doctor(given: argparse.Namespace) -> None:
    """what a run folder holds, or the cache, what it takes, what can be dropped"""
    if given.drop_teachers:
        from .runs import teacher

        teacher.drop()
    print("\n".join(examine(given.run) if given.run else examine_cache()))


def examine_cache() -> list[str]:
    """Lines on the cache: decoded images, and what each teacher gave."""
    from .data.domains import cache_folder
    from .runs import teacher

    folder, kept = cache_folder(), teacher.listed()
    decoded = sum(_bytes(path) for path in folder.iterdir() if path != teacher.teachers_folder())
    taught = sum(map(teacher.bytes_of, teacher.kept_folders(teacher.teachers_folder())))
    lines = [f"{folder}: decoded images {decoded / 1e6:.2f} MB, what teachers gave {taught / 1e6:.2f} MB"]
    lines += [f"  {line}" for line in kept]
    if kept:
        lines.append(
            "wakd doctor --drop-teachers deletes that: students ask their teachers again, with the same result. "
            "teacher_cache=GB of a training is its bound."
        )
    return lines


def examine(folder: Path) -> list[str]:
    """Lines on a run's folder: state, size by part, and what could go without losing any result."""
    from .runs.run import load_run

    run = load_run(folder)
    run.segments.check()
    sizes = {p.name: _bytes(p) for p in sorted(run.folder.iterdir())}
    lines = [repr(run), f"{len(run.table)} recorded segments, {len(run.segments)} stored ({run.segments.storage})"]
    lines += [f"  {name:18}{size / 1e6:10.2f} MB" for name, size in sizes.items()]
    lines.append(f"  {'total':18}{sum(sizes.values()) / 1e6:10.2f} MB")
    if "checkpoint.pt" in sizes:
        lines.append("not finished: checkpoint.pt is what train(..., resume=True) continues from.")
    again = sum(size for name, size in sizes.items() if name.startswith("gram_"))
    if again:
        lines.append(f"gram_*.npy ({again / 1e6:.2f} MB) can go: they are computed again when asked for.")
    each = sizes["segments"] / max(len(run.segments), 1) / 1e6
    lines.append(
        f"A stored segment takes {each:.2f} MB. Training with most_stored=N keeps N of them by merging neighbours: declared "
        "strategies stay exact, other windows move to the nearest edge."
    )
    if run.segments.storage == "float32":
        half = sizes["segments"] / 2e6
        lines.append(f"storage='float16_difference' would save about {half:.1f} MB in a run of this kind.")
    return lines


def _bytes(path: Path) -> int:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size


@command(
    "log",
    argument("runs", type=_path, help="a run's folder, or one that holds runs, finished or not"),
    argument("--tensorboard", default="", metavar="FOLDER", help="where its event files go"),
    argument("--wandb", default="", metavar="PROJECT", help="needs an account, or WANDB_MODE=offline"),
    argument("--trackio", default="", metavar="PROJECT", help="in a database on this machine"),
)
def _log(given: argparse.Namespace) -> None:
    """send the curves of recorded runs to TensorBoard, Weights & Biases or trackio"""
    from .runs import loggers

    where = {f"to_{name}": getattr(given, name) for name in ("tensorboard", "wandb", "trackio")}
    if not any(where.values()):
        raise ValueError("Say where to: --tensorboard FOLDER, --wandb PROJECT, --trackio PROJECT, or several.")
    for name in loggers.replay_all(given.runs, **where):
        print(name)


@command(
    "data get",
    argument(
        "name", help=f"one of {', '.join(BENCHMARKS)}, or lessons: the small runs that lessons look at, trained here"
    ),
    argument("--to", type=_path, help="the folder for its domains, default its name in the data folder"),
)
def _get_data(given: argparse.Namespace) -> None:
    """fetch, verify, unpack and check a published benchmark"""
    if given.name == "lessons":
        from .lessons import make_all

        return print(make_all())
    from .data.fetch import get_data

    given.path, given.benchmark, given.sheet = get_data(given.name, given.to), given.name, None
    _check_data(given)


@command(
    "data check",
    argument("path", help="a folder of domain/class/images, or a benchmark's name"),
    argument("--benchmark", help="compare with this one, or with none: folder; default is to recognise it"),
    argument("--sheet", type=_path, metavar="FILE", help="a contact sheet as PNG"),
)
def _check_data(given: argparse.Namespace) -> None:
    """count, read and compare every image; exit status 1 if not usable"""
    from .data.check import check_data
    from .plots.one_run import write_sheet

    if given.sheet:
        room_for(given.sheet, "contact sheet")
    found = check_data(given.path, given.benchmark)
    print(found)
    if given.sheet:
        print(f"{given.sheet}: {write_sheet(found, given.sheet)}")
    given.status = 0 if found.usable else 1


if __name__ == "__main__":
    sys.exit(main())
