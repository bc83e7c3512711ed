"""Who runs a study: a process that is there, or the engine that one left behind."""

import os
import socket
import subprocess
import sys

from wakd_kit.study.run import _who as who


def test_a_process_that_is_dead_is_not_named_as_running():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here, since = socket.gethostname(), "since Thu Nov 26 17:00:00 2026"
    dead = f"process {gone.pid} on {here}, wakd report tiny, {since}"
    assert who(dead) == f"the engine that was left behind when {dead} was killed"
    for owner in (
        f"process {os.getpid()} on {here} {since}",
        f"process {gone.pid} on another, x, {since}",
        "another process",
    ):
        assert who(owner) == owner
