"""A study's jobs on a cluster: what a profile hands them to, and what the cluster said of those that it turned away or ended."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import yaml

from ..files import path_of, stamp
from .places import StudyProblem
from .reading import yaml_of

PROFILES = Path(__file__).parent / "profiles"
# what Slurm writes below the output of a job that it ended, and snakemake's plugin about one that it could not hand over
ENDED = re.compile(
    r"^slurmstepd\S*: error: .*?(?:JOB|STEP) .*?\b(CANCELLED AT .*?)\*{3}|^slurmstepd\S*: error: (.*oom.*)", re.M
)
REFUSED = re.compile(r"SLURM sbatch failed\. The error message was '(.*?)'\.$", re.M | re.S)


def folder_of(profile: str) -> Path:
    """The folder of a profile: one that is shipped, by its name, or the user's own."""
    own = path_of(profile)
    return PROFILES / own if (PROFILES / own).is_dir() else own


def executor_of(profile: str) -> str:
    """What a profile hands jobs to.

    Raises ``StudyProblem`` for a profile that is not there or holds no settings, or whose executor is not installed: snakemake says
    it in 100 lines.
    """
    # of config.yaml and config.v8+.yaml snakemake takes the second
    files = sorted(folder_of(profile).glob("config*.yaml"), key=lambda file: (file.name != "config.yaml", file.name))
    if not files:
        raise StudyProblem(f"No profile at {folder_of(profile)}: it is 'slurm', or a folder with a config.yaml.")
    settings = yaml_of(files[-1], yaml.safe_load) or {}
    if not isinstance(settings, dict) or not isinstance(executor := settings.get("executor", "local"), str):
        raise StudyProblem(f"{files[-1]} should hold settings of snakemake (executor: slurm); it holds {settings!r}.")
    module = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    if executor not in ("local", "dryrun", "touch") and not importlib.util.find_spec(module):
        raise StudyProblem(
            f"The profile {profile} hands jobs to {executor}, which needs: pip install {module.replace('_', '-')}"
        )
    return executor


def words(profile: str) -> list[str]:
    """The profile as snakemake's command line takes it. Where Slurm keeps no accounts, states of jobs are asked of its queue:
    the plugin would ask accounting, be answered nothing and wait for ever."""
    given = ["--profile", str(folder_of(profile))]
    if executor_of(profile) != "slurm":
        return given
    try:
        said = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        raise StudyProblem(
            f"The profile {profile} hands jobs to Slurm, which is not here: no scontrol on the PATH."
        ) from None
    off = re.search(r"^AccountingStorageType\s*=\s*(\(null\)|accounting_storage/none)", said, re.M)
    return [*given, "--slurm-status-command", "squeue"] if off else given


def refused(log: str) -> str:
    """Why a cluster took no job, of what snakemake said; empty where it took them."""
    found = REFUSED.search(log)
    why = " ".join(found[1].removeprefix("sbatch: error: ").split()) if found else ""
    return why + " (no accelerators there? --gpus 0)" * ("generic resource" in why)


def log_of(engine: Path, job: str) -> Path | None:
    """The last log that a cluster kept of a job, given by its name for the engine; those of jobs that succeed are deleted."""
    logs = (engine / ".snakemake" / "slurm_logs" / "rule_notebook" / job).glob("*.log")
    return max(logs, key=lambda file: file.stat().st_mtime, default=None)


def ended(engine: Path, job: str) -> str:
    """Why a cluster ended a job in the run of the study that holds its lock, or held it last, in the cluster's own words; empty
    where that is not known."""
    log, begun = log_of(engine, job), stamp(engine / "lock")
    if log is None or (begun and log.stat().st_mtime_ns < begun[-1]):
        return ""
    found = ENDED.findall(log.read_text(encoding="utf-8", errors="replace"))
    why = (found[-1][0] or found[-1][1]).strip(" .") if found else ""
    return why and f"its job {log.stem} of the cluster: {why}."
