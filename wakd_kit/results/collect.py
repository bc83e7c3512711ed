"""Many recorded runs as one study: their scores, what strategies chose on them, and what is worth comparing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ..averaging import Coefficients, NoWindow
from ..averaging.extent import extent
from ..data.domains import Domains, unseen_in
from ..files import json_or_nothing, made, path_of
from ..names import did_you_mean
from ..runs.record import GAINED
from ..runs.run import Run, load_run
from ..runs.store import RunProblem
from ..statistics import DASH
from .searched import RULES

DEPLOYED = "deployed"  # the label under which a teacher's own average is scored


PAIRED = (
    "in points, paired by target and seed, with 95 % intervals: t over all pairs; bootstrap of targets and of seeds within "
    f"them; t over target means. p is of the t test over all pairs; Holm's correction is for all rows. {DASH} "
    "Left out are pairs of which a side has no score: no window was found, or the average diverged."
)


@dataclass(frozen=True)
class Recorded:
    """Runs with what ``evaluate`` measured on them. A run's student is called like its folder.

    labels   the strategies to compare; empty for all that were evaluated
    missing  what was asked for and is not here, with the reason
    search   how the settings were searched, {"rule", "draws", "by"}, where they were
    """

    runs: list[Run]
    labels: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    search: Mapping = field(default_factory=dict)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Long table: ``student, strategy, target, seed, domain, role, accuracy, nll, ece, worst_group, group, n, note, deployed``: whether a row
        is of what a teacher deployed, and not of a strategy that somebody called so."""
        tables = []
        for run in self._by_student():
            table = run.scores.assign(student=run.name, **place_of(run))
            own = self._deploys(run)
            table["deployed"] = own & (table["strategy"] == DEPLOYED)
            if self.labels:
                order = {label: i for i, label in enumerate([*self.labels, *([DEPLOYED] if own else [])])}
                table = table[table["strategy"].isin(order)].sort_values(
                    "strategy", key=lambda s: s.map(order), kind="stable"
                )
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def choices(self, run: Run) -> dict[str, Coefficients | NoWindow]:
        """What the compared strategies chose on one run; not what it deployed as a teacher."""
        chosen, left_out = run.choices, [DEPLOYED] if self._deploys(run) else []
        return {label: chosen[label] for label in self.labels or chosen if label in chosen and label not in left_out}

    def _deploys(self, run: Run) -> bool:
        """Whether its label ``DEPLOYED`` is of what it deployed as a teacher: not where a strategy is called so."""
        return DEPLOYED not in self.labels and (run.folder / "deployed.json").exists()

    def _by_student(self) -> list[Run]:
        order = self.students
        return sorted(self.runs, key=lambda run: order.index(run.name))

    @property
    def domains(self) -> Domains:
        """The images that all runs are of."""
        return self.runs[0].split.domains

    @property
    def chance(self) -> float:
        """Accuracy of guessing, in per cent: one class of as many as there are."""
        return 100 / len(self.runs[0].settings["split"]["classes"])

    @property
    def students(self) -> list[str]:
        """In the order of the runs, teacher first if there is one."""
        return sorted(dict.fromkeys(run.name for run in self.runs), key=lambda name: name != "teacher")

    @property
    def pupils(self) -> Recorded:
        """The same without the teachers' own runs."""
        missing = tuple(said for said in self.missing if _student_of(said) != "teacher")
        return replace(self, runs=[run for run in self.runs if run.name != "teacher"], missing=missing)

    @property
    def steps(self) -> int:
        """Of the longest run."""
        return max(run.steps for run in self.runs)

    def about(self) -> str:
        """What was trained, on what, how often; what is missing, and which students were not trained alike in all runs."""
        targets, seeds = self.targets, self.seeds
        models = {
            n: dict.fromkeys(r.settings["student"]["name"] for r in self.runs if r.name == n) for n in self.students
        }
        students = ", ".join(f"{n} ({', '.join(own)})" for n, own in models.items())
        out = f"each of {len(targets)} domains left out ({', '.join(targets)})"
        if len(targets) == 1:
            out = f"{targets[0]} left out"
        said = (
            f"{len(self.runs)} recorded run{'s' * (len(self.runs) > 1)}: {students}; {out} "
            f"with {len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))})."
        )
        if self.missing:
            more = f" and {len(self.missing) - 8} more" * (len(self.missing) > 8)
            said += f" Not among them: {', '.join(self.missing[:8])}{more}."
        whole = dict.fromkeys(run.name for run in self.runs if run.settings["split"].get("whole"))
        if whole:
            said += f" Trained on all source images, so that their source validation is of images they have seen: {', '.join(whole)}."
        return " ".join([said, *self._unlike()])

    def _unlike(self) -> list[str]:
        """A sentence on each student whose runs differ in more than their split and seed."""
        sentences = []
        for name in self.students:
            recipes = [recipe(run) for run in self.runs if run.name == name]
            counts = {key: Counter(short(r.get(key)) for r in recipes) for r in recipes for key in r}
            listed = [
                f"{key} {' or '.join(f'{value} (in {n})' for value, n in count.items())}"
                for key, count in counts.items()
                if len(count) > 1
            ]
            if listed:
                sentences.append(f"Runs called {name} were not trained alike: {'; '.join(listed)}.")
        return sentences

    def captions(self, baseline: str, *, selection: bool = True) -> dict[str, str]:
        """What the numbers of each printed table are, in words, and what chose the models behind them: where a table stands alone."""
        shown = dict.fromkeys(("calibration", "agreement", "churn", "parts"), self.shown(baseline))
        seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        captions = {
            "summary": "Accuracy in % on the domain left out: mean over seeds per target; mean, sd and se (standard error) "
            f"are of the average over targets, over {seeds}; n runs. Guessing scores {self.chance:.1f} %. A dash: in at least one run no window was found, or the average diverged.",
            "gains": f"Differences in accuracy on the domain left out, {PAIRED}",
            "published": "Accuracy in %: a number that the paper published, which is not ours, beside what was measured "
            "here; mean over targets and seeds, sd over seeds, n runs.",
            "calibration": "Expected calibration error in % (15 bins) on the domain left out, of each run by itself: "
            "mean over seeds per target; "
            f"mean and sd are of the average over targets, over {seeds}; source: mean over source validation parts.",
            "agreement": "How often, in %, a student predicts the class that the deployed teacher of its target and seed "
            f"predicts, on the domain left out: mean and sd are of the average over targets, over {seeds}; source: mean over "
            "source validation parts. Students that learned from no teacher are the level to beat.",
            "domainbed": "Accuracy in % on the domain left out in the form of DomainBed: mean ± standard error over "
            f"{seeds} of each target, and of the average over targets (Avg). The error is of seeds on the same domains: whether two "
            "rows differ is told by the paired intervals, not by it.",
            "groups": f"Worst-group accuracy in % on the domain left out: {self._groups()} that is right least often in a run, "
            f"mean over seeds per target; mean and sd are of the average over targets, over {seeds}. Worst domain: the lowest accuracy of "
            "a domain left out. Source: the worst group of any source validation part. The lowest of many small groups is low by chance alone.",
            "parts": "Accuracy in % on those images of the domain left out that the study's mask puts in each part, such as in and out of what "
            f"pretraining showed: mean over seeds per target; mean and sd are of the average over targets, over {seeds}; images: of the part, "
            "on the target that has fewest.",
            "rules": "Accuracy in % on the domain left out of what each rule of model selection chooses among the same draws of "
            f"settings, at {self.search.get('by', baseline)}, in the draws' own trainings: mean over their seeds. The oracle looks "
            "at the unseen domain: it is what no rule can reach honestly, was computed last, and decided nothing.",
            "churn": "How often, in %, two seeds of a student predict different classes for an image of the domain left out: "
            "mean over pairs of seeds; mean and sd are of the average over targets, over pairs of seeds; n pairs.",
        }
        if not selection:
            return captions
        return {name: f"{caption} {self.selection(shown.get(name, ()))}" for name, caption in captions.items()}

    @property
    def folded(self) -> dict[str, str]:
        """Titles of printed tables that say again what others say, or what this benchmark was not made to ask."""
        return {"domainbed": "In the form of DomainBed"} | ({} if self._attributes() else {"groups": "The worst class"})

    def _attributes(self) -> Sequence[str]:
        return self.runs[0].settings["split"].get("attributes", ())

    def _groups(self) -> str:
        known = self._attributes()
        return f"of the classes, each apart for {' and '.join(known)}, the one" if known else "of the classes the one"

    @property
    def targets(self) -> list[str]:
        """Domains that were left out, by name."""
        return sorted({run.settings["split"]["target"] for run in self.runs})

    @property
    def seeds(self) -> list[int]:
        """Of the splits, ascending."""
        return sorted({run.settings["split"]["seed"] for run in self.runs})

    def chosen_by(self) -> pd.DataFrame:
        """``student, strategy, chosen_by, evaluations``: what decided each average, and how many averages were evaluated
        on source validation for it in a run, on the mean. Strategies whose settings differ between runs have a row each."""
        rows = [
            {"student": run.name, "strategy": label, "chosen_by": choice.chosen_by, "evaluations": choice.evaluations}
            for run in self._by_student()
            for label, choice in run.choices.items()
            if isinstance(choice, Coefficients)
            and (label in (self.labels or [label]) or (label == DEPLOYED and self._deploys(run)))
        ]
        table = pd.DataFrame(rows, columns=["student", "strategy", "chosen_by", "evaluations"])
        return table.groupby(["student", "strategy", "chosen_by"], sort=False, as_index=False)["evaluations"].mean()

    def selection(self, strategies: Sequence[str] = ()) -> str:
        """On what chose each average, and the settings, for the caption of every table: model selection is part of a result, and its
        rule is called what the literature calls it (Gulrajani and Lopez-Paz 2021, section 3).

        strategies  those that the table shows, if not all
        """
        table = self.chosen_by()
        table = table[table["strategy"].isin(strategies or table["strategy"])].copy()
        table["chosen_by"] = table["chosen_by"].replace("", "not recorded")
        parts = []
        for chosen_by, part in table.groupby("chosen_by", sort=False):
            tried = part["evaluations"].max()
            how = f"{chosen_by}, up to {tried:.0f} of them" if tried else chosen_by
            parts.append(f"{', '.join(dict.fromkeys(part['strategy']))} ({how})")
        rule, searched = "training_domain_validation", ""
        if self.search:
            searched = " Settings were searched by {}, {draws} draws judged at {by}.".format(
                RULES[self.search.get("rule", rule)], **self.search
            )
        return f"Model selection, by {RULES[rule]}: {'; '.join(parts)}.{searched} Nothing was chosen on the target.{self._moved([*dict.fromkeys(table['strategy'])])}"

    def _moved(self, labels: Sequence[str]) -> str:
        """A sentence on averages whose begin or end meets no recorded edge, as where it was changed afterwards; "" for none."""
        found = []
        for label in labels:
            causes = [re.search(r"(\w+=[\d.]+) lies inside", c.note) for c in self._coefficients(label)]
            for cause, n in Counter(cause[1] for cause in causes if cause).items():
                found.append(f"{label} ({cause}, in {n} of {len(causes)} runs)")
        if not found:
            return ""
        return f" No segment has an edge where these were asked to begin or end, so they average whole segments within: {', '.join(found)}."

    def shown(self, baseline: str) -> list[str]:
        """The baseline, and the first strategy after it that averages and that every student was evaluated with."""
        known = self._strategies()
        shared = [s for s in known[self.students[0]] if s != baseline and all(s in names for names in known.values())]
        averages = [s for s in shared if any(c.of == "mean" for c in self._coefficients(s))]
        return [baseline, *averages[:1]]

    def contrasts(
        self, baseline: str, reference: str | Mapping[str, str] = ""
    ) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """Every strategy against the baseline within a student, then students against each other, or each against the
        ``reference`` student or its own ({student: reference}), at the baseline and at the first averaging strategy that
        all of them have."""
        within = [((n, s), (n, baseline)) for n, names in self._strategies().items() for s in names if s != baseline]
        pupils = [n for n in self.students if n != "teacher"]
        own = reference if isinstance(reference, Mapping) else dict.fromkeys(pupils, reference) if reference else {}
        unknown = {*own.keys(), *own.values()} - {*pupils}
        for name in sorted(unknown - {_student_of(said) for said in self.missing} if unknown else unknown):
            raise RunProblem(did_you_mean("reference student", name, pupils))
        own = {name: other for name, other in own.items() if not unknown & {name, other}}
        pairs = [(own[n], n) for n in pupils if own.get(n, n) != n] if own else combinations(pupils, 2)
        between = [((b, s), (a, s)) for a, b in pairs for s in self.shown(baseline)]
        return within + between

    def _strategies(self) -> dict[str, list[str]]:
        """What each student was evaluated with, but for what a teacher deploys."""
        compared = self.scores[~self.scores["deployed"]]
        return {n: [*compared.loc[compared["student"] == n, "strategy"].unique()] for n in self.students}

    def _coefficients(self, strategy: str) -> list[Coefficients]:
        chosen = [run.choices.get(strategy) for run in self.runs]
        return [c for c in chosen if isinstance(c, Coefficients)]

    def picks(self) -> pd.DataFrame:
        """``student, strategy, target, seed, begin, end`` in steps of every window; NaN where none was found."""
        rows = []
        for run in self._by_student():
            curves = run.source_curves
            for label, choice in self.choices(run).items():
                row = {"student": run.name, "strategy": label, **place_of(run), "begin": np.nan, "end": np.nan}
                if isinstance(choice, Coefficients):
                    row |= zip(("begin", "end"), map(float, extent(curves, choice)))
                rows.append(row)
        return pd.DataFrame(rows)

    def without_window(self) -> pd.DataFrame:
        """Strategies that found no window: ``student, strategy, target, seed, reason``; usually empty."""
        rows = [
            {"student": run.name, "strategy": label, **place_of(run), "reason": str(choice)}
            for run in self._by_student()
            for label, choice in self.choices(run).items()
            if isinstance(choice, NoWindow)
        ]
        return pd.DataFrame(rows, columns=["student", "strategy", "target", "seed", "reason"])

    def reasons(self) -> pd.DataFrame:
        """``student, strategy, runs, reason``: strategies without a window, runs with the same reason in one row."""
        rows = []
        for (student, strategy, reason), part in self.without_window().groupby(
            ["student", "strategy", "reason"], sort=False
        ):
            of = sum(run.name == student for run in self.runs)
            which = ", ".join(f"{target} {seed}" for target, seed in zip(part["target"], part["seed"]))
            runs = f"all {of}" if len(part) == of else f"{len(part)} of {of}: {which}"
            reason = reason.split("found no window: ")[-1]
            rows.append({"student": student, "strategy": strategy, "runs": runs, "reason": reason})
        return pd.DataFrame(rows, columns=["student", "strategy", "runs", "reason"])

    def mapped(self) -> list[Run]:
        """The runs that have a window map."""
        return [run for run in self.runs if len(run.window_map)]

    def images(self, run: Run) -> int:
        """How many images of the unseen domain its accuracies are over."""
        return int(run.scores[run.scores["role"] == "target"].drop_duplicates("domain")["n"].sum())

    def label(self, run: Run) -> str:
        """What a run is, for a caption."""
        split = run.settings["split"]
        return f"{run.name}, unseen domain {split['target']}, seed {split['seed']}"

    def called(self, run: Run) -> str:
        """A run's name in names of files: ``sketch-s0-KD``."""
        split = run.settings["split"]
        return f"{split['target']}-s{split['seed']}-{run.name}"

    def save(self, folder: str | Path, **tables: pd.DataFrame) -> None:
        """Write scores.csv, picks.csv and every given table that has rows as ``<name>.csv`` into a folder."""
        save_tables(folder, scores=self.scores, picks=self.picks(), **tables)


def save_tables(folder: str | Path, **tables: pd.DataFrame) -> None:
    """Write every table that has rows as ``<name>.csv`` into a folder, without the single pairs; an older one is gone."""
    folder = made(Path(folder), "folder for the tables")
    for name, table in tables.items():
        (folder / f"{name}.csv").unlink(missing_ok=True)
        if len(table):
            table.drop(columns=["pairs", "pair_targets"], errors="ignore").to_csv(folder / f"{name}.csv", index=False)


def place_of(run: Run) -> dict[str, object]:
    """``{"target": the domain that was left out, "seed": of the split}``."""
    return {name: run.settings["split"][name] for name in ("target", "seed")}


_NOT_RECIPE = {
    *("student", "teacher", "split", "seed", "declare", "edges", "most_stored", "storage", "format"),
    *(
        "identity",
        "code",
        "seen",
        "arithmetic",
    ),  # what it is made of and has met, and the machine, which go with the others
}


def is_pretrained(run: Run) -> bool:
    """Whether a student began with weights that were trained elsewhere."""
    return any(run.settings["student"].get(name) for name in ("pretrained", "weights"))


def recipe(run: Run) -> dict[str, object]:
    """All that a training may differ in beside its split, its seed and how it is stored."""
    s = {**GAINED, **run.settings}
    student, teacher, split = s["student"], s["teacher"], s["split"]
    started = Path(student.get("started_from", "")).name  # a run, or where weights are from
    known = split.get("contents", {})
    every = [name for name in known if name not in unseen_in(split["target"], known)]
    return {
        "model": [student["name"].partition(".")[0], student.get("settings")],
        "start": started or ("pretrained" if is_pretrained(run) else "scratch"),
        "sources": "all" if not known or split["sources"] == every else split["sources"],
        "images": "all" if split.get("whole") else "training parts",
        "teacher": None if teacher is None else [teacher.get("run"), teacher.get("strategy"), teacher.get("model")],
        **{name.replace("_", " "): value for name, value in s.items() if name not in _NOT_RECIPE},
    }


def short(value: object) -> str:
    """A setting as a sentence says it: without what is empty in it, and what is long cut off."""
    text = str(value[0] if isinstance(value, list) and value and value[1:] == [{}] else value)
    return text if len(text) < 120 else f"{text[:116]} ..."


def _student_of(said: str) -> str:
    """The student that an entry of ``Recorded.missing`` is about."""
    return Path(said.partition(" (")[0]).name


def run_folders(folder: str | Path) -> list[Path]:
    """Folders of finished recordings, a folder itself or those below it, links followed; not those that were set aside, nor those
    of a search that left a source out."""
    seen, found = set(), []
    for here, below, files in os.walk(path_of(folder), followlinks=True):
        if (real := os.path.realpath(here)) in seen:  # a link to what was seen
            below.clear()
        elif "settings.json" in files:
            found.append(Path(here))
            below.clear()
        aside = r"\.recording$|\.before-" + (r"|-s\d+-without-" if Path(here).name == "search" else "")
        below[:] = sorted(name for name in below if not re.search(aside, name))
        seen.add(real)
    return found


def collect(folder: str | Path, *, only: Sequence[str] = (), strategies: Sequence[str] = ()) -> Recorded:
    """Every finished and evaluated run below a folder but a search's draws, or those at ``only`` these places, in this order.

    strategies  labels to compare, default all that were evaluated
    What is asked for and not there is named by ``Recorded.about``. Raises ``RunProblem`` when there is none, when no run
    was evaluated with one of ``strategies``, or when runs are of different images, classes or validation parts.
    """
    folder, missing, runs = path_of(folder), [], []
    places = [folder / place for place in only] or [
        place for place in run_folders(folder) if place.relative_to(folder).parts[:1] != ("search",)
    ]
    names = list(only) or [str(place.relative_to(folder)) for place in places]
    for place, name in zip(places, names):
        if not (place / "settings.json").is_file():
            missing.append(f"{name} (no finished recording)")
            continue
        run = load_run(place)
        known = set(run.scores["strategy"]) if len(run.scores) else set()
        lost = [label for label in strategies if label not in known]
        if not known and not only:
            continue
        if not known or run.settings["split"]["target"] is None:
            missing.append(f"{name} ({'not evaluated' if not known else 'no domain was left out'})")
            continue
        runs.append(run)
        if lost:
            missing.append(f"{name} (not evaluated with {', '.join(lost)})")
    if not only:
        runs = sorted(runs, key=lambda run: (run.name, str(run.folder)))
    if not runs:
        among = f": {', '.join(missing)}" if missing else ""
        raise RunProblem(
            f"No evaluated run below {folder}{among}; train some with 02_distill, or call evaluate(run, ...)."
        )
    nowhere = [label for label in strategies if all(label not in set(run.scores["strategy"]) for run in runs)]
    if nowhere:
        others = ", nor was any other" * (len(runs) > 1)
        raise RunProblem(f"{runs[0].folder} was not evaluated with {', '.join(nowhere)}{others}.")
    refuse_other_data(runs)
    return Recorded(runs, tuple(strategies), tuple(missing), json_or_nothing(folder / "search" / "rule.json"))


def refuse_other_data(runs: Sequence[Run]) -> None:
    """Raises ``RunProblem`` unless runs are of the same images, classes and validation parts, wherever these lie."""
    first = runs[0].settings["split"]
    for run in runs[1:]:
        other = run.settings["split"]
        for key, what in (("classes", "classes"), ("fingerprint", "images"), ("validation", "shares held out")):
            if None not in (first.get(key), other.get(key)) and first[key] != other[key]:
                raise RunProblem(
                    f"Runs on different {what} are not compared: {_data(runs[0])}, and {_data(run)}. Give the folder of "
                    "one of them, or the runs that belong together as only."
                )


def _data(run: Run) -> str:
    split = run.settings["split"]
    size = split["options"].get("size")
    pixels = f" at {size} px" if size else ""
    return (
        f"{run.folder} is of {split['benchmark'] or 'arrays in memory'}{pixels} ({len(split['classes'])} classes, "
        f"{100 * split['validation']:.0f} % held out)"
    )
