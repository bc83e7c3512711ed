"""A Slurm cluster of one node on this machine, with nothing left of it afterwards: munged, slurmctld and slurmd.

    python -m tests.slurm FOLDER          starts one, says how to reach it, and stops it with Ctrl-C

Debian has all of it: ``apt-get install slurm-wlm munge``. Accounting is off, processes are followed through /proc, no control
group is touched and nothing outside the folder is written, so that it works as root in a container. The node claims more
processors and memory than are there, for jobs of a test mostly wait.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .waiting import until

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch")
CONFIGURATION = """
ClusterName=of_one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
PluginDir={plugins}
PlugStackConfig={folder}/no-plugstack
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=5
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no cluster can be started here; empty where it can."""
    found = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacks = [name for name in PROGRAMS if shutil.which(name, path=found) is None]
    if lacks:
        return f"no Slurm on this machine ({', '.join(lacks)}): apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "a cluster of one's own is started by root"


@contextlib.contextmanager
def cluster(folder: Path, *, cpus: int = 8, memory: int = 64_000) -> Iterator[dict[str, str]]:
    """A cluster that keeps everything below ``folder``; yields the environment in which Slurm's commands reach it."""
    for name in ("munge", "state", "spool", "bin"):
        (folder / name).mkdir(parents=True, mode=0o700)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    plugins = next(place for place in Path("/usr/lib").glob("*/slurm-wlm") if place.is_dir())
    told = {"folder": folder, "host": host, "ports": _free_ports(2), "cpus": cpus, "memory": memory, "plugins": plugins}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**told))
    (folder / "no-plugstack").touch()
    env = {
        **os.environ,
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
    }
    # snakemake's plugin starts srun without any variable of Slurm's; a cluster that is not the machine's own has to be named
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={env["SLURM_CONF"]} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge/socket"]
    # by force, for a folder of a test is nobody else's, which its socket is complained about
    munge += [f"--{name}={folder}/munge/{name}" for name in ("pid-file", "seed-file", "log-file")]
    with contextlib.ExitStack() as daemons:
        daemons.callback(_kill_left, f"SLURM_CONF={env['SLURM_CONF']}".encode())
        daemons.enter_context(_running([*munge, "--num-threads=2"], env, folder))
        until((folder / "munge" / "socket").exists, partial(_logs, folder))
        daemons.enter_context(_running(["slurmctld", "-D"], env, folder))
        daemons.enter_context(_running(["slurmd", "-D", "-N", host], env, folder))
        daemons.callback(_end_jobs, env)  # the first that is done at the end, while all of it answers
        until(lambda: "idle" in say(["sinfo", "-h", "-o", "%t"], env), partial(_logs, folder))
        yield env


def say(command: list[str], env: dict[str, str]) -> str:
    """What one of Slurm's commands answers; empty where it fails."""
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout.strip()


def _kill_left(named: bytes) -> None:
    """What was started with this SLURM_CONF and does not end when it is cancelled, for no control group holds it: a snakemake that
    waits for a thread of its own."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(entry.name) != os.getpid() and named in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)


def state(env: dict[str, str]) -> str:
    """What the cluster says of its node and its jobs, and the ends of its daemons' logs."""
    asked = (["sinfo", "-N", "-o", "%n %T %E"], ["squeue", "--states=all", "--format=%i %T %k %r"])
    return "\n".join([*(say(command, env) for command in asked), str(_logs(Path(env["SLURM_CONF"]).parent))])


def _logs(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text(errors="replace")[-800:] for file in sorted(folder.glob("*.[ls][oa]*"))}


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def _running(command: list[str], env: dict[str, str], folder: Path) -> Iterator[None]:
    with open(folder / f"{command[0]}.said", "wb") as said:
        daemon = subprocess.Popen(command, env=env, stdout=said, stderr=said, start_new_session=True)
    try:
        yield
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _end_jobs(env: dict[str, str]) -> None:
    """Nothing that a test left behind goes on without its cluster."""
    say(["scancel", "--full", "--user=root"], env)
    for _ in range(300):
        if not say(["squeue", "--noheader"], env):
            return
        time.sleep(0.1)


if __name__ == "__main__":
    with cluster(Path(sys.argv[1]).resolve()) as reached:
        print(f"export SLURM_CONF={reached['SLURM_CONF']}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
