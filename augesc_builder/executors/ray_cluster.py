"""A Ray cluster: reached by its address, or said not to be there; the room that it has."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import ray

from augesc_builder.errors import ExecutorError
from augesc_builder.run.heartbeat import one_line

_PATIENCE = 4.0
"""Seconds that a cluster has to take a connection, and again to answer on it."""

_ATTEMPTS, _PAUSE = 4, 2.0
"""How often a cluster is asked to begin the server that Ray's client speaks to, and the seconds
before it is asked again: on a node with much to do such a server may die before it answers."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of gRPC begins: the preface of HTTP/2 and settings that say nothing."""

_CLIENT = "ray://"

LOCAL = "local"
"""The address of a cluster that is begun for the run, on this machine."""

_OWN = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""How Ray is told what holds for a cluster of our own: it sends nothing anywhere, and its workers,
which it gives what others leave of a core, are as any process. What the user has set stays."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Reach a cluster, or begin one here where the address is ``local``.

    One that this process has reached before is used as it is.

    Raises :class:`~augesc_builder.errors.ExecutorError` where there is none.
    """
    if ray.is_initialized():
        yield
        return
    check_address(address)
    options = {}
    if address == LOCAL:
        for name, value in _OWN.items():
            os.environ.setdefault(name, value)
        options["include_dashboard"] = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong stands in the error
            # Lines of workers may hold strangers' text: what is to be said is in their reports.
            _begin(address, **options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise ExecutorError(
            f"{address}: Ray could not be begun there: {type(error).__name__}: "
            f"{one_line(str(error))}; a cluster that asks for a token is reached with "
            f"RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _begin(address: str, **options: Any) -> None:
    for left in reversed(range(_ATTEMPTS)):
        try:
            ray.init(address, **options)
        except ConnectionAbortedError:  # said of nothing but that server
            if not left:
                raise
            time.sleep(_PAUSE)
        else:
            return


def check_address(address: str) -> None:
    """Refuse an address where nothing speaks as Ray does, which itself would wait for minutes.

    Raises :class:`~augesc_builder.errors.ExecutorError`.
    """
    if address == "auto":
        address = _found()
    if address != LOCAL and not ray.is_initialized():
        _check_answers(address)


def _found() -> str:
    """Return the address in RAY_ADDRESS, or that of a cluster begun on this machine."""
    from ray._private.services import get_ray_address_from_environment

    try:
        return str(get_ray_address_from_environment("auto", None))
    except ConnectionError:
        raise ExecutorError(
            "no Ray cluster on this machine: begin one (`ray start --head`), give its address "
            "(--ray-address ray://HOST:10001), or have one begun for this run alone "
            "(--ray-address local)"
        ) from None


def _check_answers(address: str) -> None:
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise ExecutorError(
            f"{one_line(address, 80)}: expected auto, local, HOST:PORT or ray://HOST:PORT"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PATIENCE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in {"0", ""}:
                return  # it says nothing to us
            connection.settimeout(_PATIENCE)
            connection.sendall(_PREFACE)
            if not connection.recv(9):
                raise ConnectionError("it hung up")
    except (OSError, OverflowError) as error:
        raise ExecutorError(
            f"{one_line(address, 80)}: no Ray cluster answers there "
            f"({one_line(str(error), 120)}); begin one (`ray start --head`), or look whether "
            f"the address is the one that it told"
        ) from None


Needs = tuple[Literal["GPU", "CPU"], int]
"""What a worker needs of one node, and how many."""


def needs(nodes: Sequence[Mapping[str, Any]], gpus: int) -> Needs:
    """Return what a worker that can use so many GPUs needs: these, or a core where are none.

    Raises :class:`~augesc_builder.errors.ExecutorError` where there are GPUs, but no node has as
    many.
    """
    most = max((int(n["Resources"].get("GPU", 0)) for n in nodes if n["Alive"]), default=0)
    if not gpus or not most:
        return "CPU", 1
    if most < gpus:
        raise ExecutorError(
            f"generate.backend.tensor_parallel: {gpus}: a worker needs as many GPUs on one node, "
            f"and no node of the cluster has more than {most}"
        )
    return "GPU", gpus


def places(nodes: Sequence[Mapping[str, Any]], leaving: Collection[str], needs: Needs) -> int:
    """Return how many workers there is room for, on nodes that are not among the ``leaving``."""
    kind, n = needs
    staying = [node for node in nodes if node["Alive"] and node["NodeID"] not in leaving]
    return sum(int(node["Resources"].get(kind, 0) // n) for node in staying)


def draining() -> set[str]:
    """Return the ids of the nodes that are drained.

    Ray says so by no public call: where this one is gone, a drained node leaves as any that fails.
    """
    try:
        from ray._private.state import state

        return set(state.get_draining_nodes())
    except Exception:  # of whatever version, or of Ray's client, which has none
        return set()
