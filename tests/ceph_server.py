"""A Ceph of one machine in memory, whose gateway speaks S3: a server that is not ours nor moto's.

It is what Debian's packages ``ceph-mon``, ``ceph-osd`` and ``radosgw`` bring, and it decides by
itself which of two makers is first.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

PROGRAMS = ("monmaptool", "ceph-mon", "ceph", "ceph-osd", "radosgw", "radosgw-admin")

_PATIENCE = 180.0

_CONF = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon service mode = crc
ms mon cluster mode = crc
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
mon allow pool size one = true
mon data avail crit = 0
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}
run dir = {folder}
crash dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
"""


def lacking() -> list[str]:
    """Name what has to be on the path and is not."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Ceph:
    """A monitor, a disk in memory and a gateway, each a process of its own."""

    def __init__(self, key: str, secret: str) -> None:
        # A socket's path may have 107 bytes, and pytest's folders have long names.
        self._folder = Path(tempfile.mkdtemp(prefix="ceph-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self.url = self._begin(key, secret)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGKILL)
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self, key: str, secret: str) -> str:
        fsid, disk, port, gateway = str(uuid.uuid4()), str(uuid.uuid4()), _port(), _port()
        conf = self._folder / "ceph.conf"
        conf.write_text(_CONF.format(fsid=fsid, port=port, folder=self._folder))
        (self._folder / "mon").mkdir()
        (self._folder / "osd").mkdir()
        monmap = self._folder / "monmap"
        place = f"[v2:127.0.0.1:{port}]"
        self._do("monmaptool", "--create", "--fsid", fsid, "--addv", "a", place, str(monmap))
        self._do("ceph-mon", "-i", "a", "--mkfs", "--monmap", str(monmap))
        self._start("ceph-mon", "-i", "a", "-f")
        self._do("ceph", "osd", "new", disk)
        self._do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._start("ceph-osd", "-i", "0", "-f")
        user = ("--uid=tests", "--display-name=tests", f"--access-key={key}", f"--secret={secret}")
        self._do("radosgw-admin", "user", "create", *user)
        front = f"beast endpoint=127.0.0.1:{gateway}"
        self._start("radosgw", "-n", "client.rgw.a", "-f", "--rgw-frontends", front)
        url = f"http://127.0.0.1:{gateway}"
        _wait_for(url)
        return url

    def _command(self, program: str, *arguments: str) -> list[str]:
        own = [] if program == "monmaptool" else ["-c", str(self._folder / "ceph.conf")]
        return [program, *own, *arguments]

    def _do(self, *command: str) -> None:
        subprocess.run(
            self._command(*command), check=True, capture_output=True, timeout=_PATIENCE, env=_env()
        )

    def _start(self, *command: str) -> None:
        self._processes.append(
            subprocess.Popen(
                self._command(*command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_env(),
            )
        )


def _env() -> dict[str, str]:
    """What its programs are given: those in Python are the system's, and not of our environment."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}


def _port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(url: str) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
