"""The batch file of a build on Slurm: written to be read and edited, and submitted by itself."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from augesc_builder.errors import ExecutorError
from augesc_builder.run.disk import disk_errors

_TEMPLATE = """\
#!/bin/bash
# A build on Slurm, written by `augesc slurm`; edit it as your cluster wants it.
#
#     bash {file}
#
# submits three jobs: one that collects queries and fine-tunes, an array whose elements generate,
# and one behind it that filters, measures and writes the card. Elements are workers, and each takes
# many shards: there may be more shards than any cluster lets an array have elements. What is
# finished is never made again, so submit it again after whatever happened; an element that is put
# back in the queue goes on by itself.
#SBATCH --job-name={name}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
{options}set -euo pipefail

build=({command})

case "${{1:-submit}}" in
submit)
    first=$(sbatch --parsable "$0" first)
    shards=$(sbatch --parsable --array=0-{last} --dependency="afterok:${{first%;*}}" \\
        --kill-on-invalid-dep=yes "$0" shards)
    last=$(sbatch --parsable --dependency="afterany:${{shards%;*}}" "$0" last)
    echo "submitted: first ${{first%;*}}, shards ${{shards%;*}}, last ${{last%;*}}"
    ;;
first) exec "${{build[@]}}" --until {until} ;;
shards | last) exec "${{build[@]}}" ;;
*) echo "$0: expected nothing, first, shards or last, found $1" >&2; exit 2 ;;
esac
"""

_RAY_TEMPLATE = """\
#!/bin/bash
# A build on a Ray cluster in an allocation of Slurm, written by `augesc slurm --ray`; edit it as
# your cluster wants it.
#
#     bash {file}
#
# submits three jobs: one that collects queries and fine-tunes, one that begins Ray on {n} nodes,
# generates there and ends Ray, and one behind it that filters, measures and writes the card. What
# is finished is never made again, so submit it again after whatever happened.
#SBATCH --job-name={name}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
{options}set -euo pipefail

build=({command})
ray=({ray})

case "${{1:-submit}}" in
submit)
    first=$(sbatch --parsable --nodes=1 "$0" first)
    # A node that fails is done without: Ray gives what it was at to others.
    shards=$(sbatch --parsable --nodes={n} --ntasks-per-node=1 --no-kill \\
        --dependency="afterok:${{first%;*}}" --kill-on-invalid-dep=yes "$0" shards)
    last=$(sbatch --parsable --nodes=1 --dependency="afterok:${{shards%;*}}" \\
        --kill-on-invalid-dep=yes "$0" last)
    echo "submitted: first ${{first%;*}}, shards ${{shards%;*}}, last ${{last%;*}}"
    ;;
first) exec "${{build[@]}}" --executor local --until {until} ;;
shards)
    # This is the first node of the allocation. Where it has several networks, give the address by
    # which the others reach it.
    host=$(hostname -I | cut -d " " -f 1)
    port=$((20000 + SLURM_JOB_ID % 10000))
    # Its workers are as any process, unless you have said otherwise.
    export RAY_ADDRESS="$host:$port" RAY_USAGE_STATS_ENABLED=0
    export RAY_worker_niceness="${{RAY_worker_niceness:-0}}"
    # Whoever reaches the port of a Ray without a token may run what he likes there.
    RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d " \\n")
    export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
    # Nodes give Ray what Slurm gives them.
    node='exec "$@" --block --num-cpus="$SLURM_CPUS_ON_NODE" '
    node+='--num-gpus="${{SLURM_GPUS_ON_NODE:-0}}"'
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" \\
        bash -c "$node" ray "${{ray[@]}}" --head --node-ip-address="$host" --port="$port" \\
        --disable-usage-stats &
    head=$!
    until (: >"/dev/tcp/$host/$port") 2>/dev/null; do
        kill -0 "$head" || {{ echo "$0: Ray did not begin on $host" >&2; exit 1; }}
        sleep 1
    done
    others=$((SLURM_JOB_NUM_NODES - 1))
    if ((others)); then
        srun --overlap --nodes="$others" --ntasks="$others" --exclude="$SLURMD_NODENAME" \\
            --no-kill --kill-on-bad-exit=0 bash -c "$node" ray "${{ray[@]}}" \\
            --address="$RAY_ADDRESS" &
    fi
    "${{build[@]}}" --executor ray --ray-address auto --until generate
    ;;
last) exec "${{build[@]}}" --executor local ;;
*) echo "$0: expected nothing, first, shards or last, found $1" >&2; exit 2 ;;
esac
"""

_LIMIT = re.compile(r"^MaxArraySize\s*=\s*(\d+)\s*$", re.MULTILINE)

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Batch:
    """What a batch file is to say: of an array, or with ``on_ray`` of a Ray cluster.

    ``command`` is that of the build without its executor, ``n`` the elements or nodes, ``until``
    the last stage before shards are made, and ``options`` go into lines of ``#SBATCH``.
    """

    name: str
    command: Sequence[str]
    n: int
    until: str
    options: Sequence[str]
    on_ray: bool

    def text(self, file: Path) -> str:
        """Return the text of the file that lies at ``file``.

        Raises :class:`~augesc_builder.errors.ExecutorError` for a path that no line of ``#SBATCH``
        can hold.
        """
        path = str(file.absolute())
        if not path.isprintable() or '"' in path:
            raise ExecutorError(f"{str(file)!r}: a batch file cannot name it; give another --file")
        command = [*self.command, *([] if self.on_ray else ["--executor", "slurm"])]
        return (_RAY_TEMPLATE if self.on_ray else _TEMPLATE).format(
            file=shlex.quote(str(file)),
            name=_one_word(self.name),
            log=f'"{path}-%x-%j.log"',
            options="".join(f"#SBATCH {option}\n" for option in self.options),
            command=shlex.join(command),
            last=self.n - 1,
            n=self.n,
            ray=shlex.join([sys.executable, "-m", "ray.scripts.scripts", "start"]),
            until=self.until,
        )


def write_batch(file: Path, text: str) -> None:
    """Write the file, where none is; one that somebody has edited is never overwritten.

    Raises :class:`~augesc_builder.errors.ExecutorError` where another text is there.
    """
    with disk_errors(file):
        if file.exists() and file.read_text("utf-8", "surrogateescape") != text:
            raise ExecutorError(
                f"{file} is there already and says something else, maybe what you edited: submit "
                f"it with `bash {shlex.quote(str(file))}`, or give another --file"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        # What is given on the command line may be no UTF-8, and means the same bytes here.
        file.write_text(text, encoding="utf-8", errors="surrogateescape")


def check_cluster(n: int | None) -> None:
    """Refuse what this cluster would refuse, before anything is submitted; ``n`` are elements.

    Raises :class:`~augesc_builder.errors.ExecutorError` where there is no ``sbatch``, or where its
    arrays may not have as many elements.
    """
    if shutil.which("sbatch") is None:
        raise ExecutorError(
            "no sbatch on the path: this machine submits nothing to Slurm; go to a login node of "
            "the cluster, or leave --submit out and take the file there"
        )
    if n is None:
        return
    asked = subprocess.run(
        ["scontrol", "show", "config"], capture_output=True, text=True, check=False, timeout=60
    )
    limit = _LIMIT.search(asked.stdout)
    if limit is not None and n >= int(limit[1]):
        raise ExecutorError(
            f"--array {n:,}: this cluster takes at most {int(limit[1]) - 1:,} elements "
            f"(MaxArraySize); give fewer, each takes as many shards as it comes to"
        )


def submit(file: Path) -> str:
    """Submit the file; return what it says.

    Raises :class:`~augesc_builder.errors.ExecutorError` where Slurm does not take it.
    """
    done = subprocess.run(
        ["bash", str(file)], capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        reason = " ".join(done.stderr.split())[-400:]
        raise ExecutorError(f"Slurm did not take {file}: {reason or 'no reason given'}")
    return done.stdout.strip()


def _one_word(name: str) -> str:
    """Return a name as the name of a job."""
    return "augesc-" + (_NOT_IN_A_NAME.sub("-", name)[:60] or "build")
