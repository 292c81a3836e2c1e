"""A Slurm of one node on loopback, begun for a test and ended with it: Debian's slurm-wlm.

    python -m tests.executors.slurm_cluster COMMAND...

runs a command that reaches such a cluster.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_min_interval=200000
ReturnToService=2
KillWait=3
MaxArraySize=101
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def lacking() -> list[str]:
    """Name what is not installed; all of it comes with the package slurm-wlm."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


@contextlib.contextmanager
def one_node() -> Iterator[dict[str, str]]:
    """Begin a cluster in a folder that goes with it; give the environment that reaches it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path is short
    try:
        with slurm(folder) as environ:
            yield environ
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Begin a cluster below a short path; give the environment that reaches it."""
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o600)
    host = platform.node().partition(".")[0]
    with _ports(2) as (control, node):
        pass
    given = {"folder": folder, "host": host, "control": control, "node": node}
    (folder / "slurm.conf").write_text(_CONF.format(**given, cpus=os.cpu_count()))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    environ = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    environ["PATH"] += ":/usr/sbin"
    munge = ["munged", "-F", "--force", f"--socket={folder}/munge.socket"]
    munge += [f"--key-file={folder}/key", f"--pid-file={folder}/munge.pid"]
    munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
    daemons = [munge, ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for daemon in daemons:
            with (folder / f"{daemon[0]}.out").open("wb") as log:
                running.append(
                    subprocess.Popen(daemon, env=environ, stdout=log, stderr=subprocess.STDOUT)
                )
            if daemon is munge:
                _until((folder / "munge.socket").exists, folder)
        _until(lambda: "idle" in ask(environ, "sinfo", "-h", "-o", "%T"), folder)
        yield environ
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):  # a TimeoutError is one
            ask(environ, "scancel", "-u", "root")
            _until(lambda: not ask(environ, "squeue", "-h"), folder, 60)
        for process in reversed(running):
            process.terminate()
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()
        _until(lambda: not running_in(folder), folder, 60)


def running_in(folder: Path) -> dict[int, str]:
    """Give the processes of a cluster that are there: daemons, those of its steps, and jobs."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"SLURM_CONF={folder}/".encode() in path.read_bytes():
                found[int(path.parent.name)] = path.with_name("comm").read_text().strip()
    return {pid: name for pid, name in found.items() if pid != os.getpid()}


def element_of(pid: int) -> str | None:
    """Give the rank of a process that is of an element, where it is there."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if line.startswith(b"SLURM_ARRAY_TASK_ID="):
                return line.partition(b"=")[2].decode()
    return None


def ask(environ: dict[str, str], *command: str) -> str:
    """Give what a command of the cluster says, empty where it fails."""
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout


def _until(is_so, folder: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            said = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.out"))
            raise TimeoutError(f"the cluster did not begin: {said}")
        time.sleep(0.2)


@contextlib.contextmanager
def _ports(n: int) -> Iterator[list[int]]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        yield [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    with one_node() as reached:
        sys.exit(subprocess.run(sys.argv[1:], env=reached, check=False).returncode)
