"""Objects below an address such as ``s3://bucket/run``: read, created, put, copied, deleted.

Any file system of fsspec will do. What fails in passing (a 500, a connection that drops, an answer
that does not come) is tried again, with longer and longer waits; what stays wrong is one line.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from augesc_builder.errors import AugescError, MissingExtraError, StoreError
from augesc_builder.run.store_words import (
    PRECONDITION,
    REMEMBERING,
    is_about_keys,
    is_forbidden,
    is_wrong,
    md5,
    options,
    package,
    short,
    status,
)

T = TypeVar("T")

_ADDRESS = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<path>[^\s\\*?\[\]{}#@:]+)\Z")
_LONGEST = 900
"""Bytes of an address: keys have up to 1,024, and what is written below has names too."""

_TRIES, _FIRST_WAIT, _LONGEST_WAIT = 9, 0.2, 10.0
"""Half a minute of waiting. Libraries try twice each time: where a third of all requests fails, all
tries do once in hundreds of millions."""

_AT_ONCE = 4
"""Makers that the probe lets race for one key."""

_FINAL = (FileNotFoundError, FileExistsError, IsADirectoryError)
"""What another try does not mend."""

_UNKNOWN = (NotImplementedError, TypeError)
"""How file systems of fsspec say that they have no such way of writing."""


@dataclass(frozen=True)
class Object:
    """What a listing says of an object; ``key`` is its name below the address."""

    key: str
    bytes: int
    md5: str | None


def is_address(text: str) -> bool:
    """Whether a text names a place that is not on this machine's disks."""
    return "://" in text and not text.startswith("file://")


def check_address(text: str) -> str:
    """Return an address, without a slash at its end.

    Raises ``ValueError`` where it cannot be one.
    """
    shown, address = text[:80], text.rstrip("/")
    found = _ADDRESS.match(address)
    if not address.isprintable() or found is None:
        raise ValueError(
            f"{shown!r} is no address such as s3://bucket/run; keys that open it stand in the "
            f"environment, and not in the address"
        )
    if {"", ".", ".."} & set(found["path"].split("/")):
        raise ValueError(f"{shown!r} has a part that is empty or of dots; name the place itself")
    if len(address.encode()) > _LONGEST:
        raise ValueError(f"{shown!r}... has more than {_LONGEST} bytes; give a shorter address")
    return address


class Store:
    """The objects below an address.

    Every call raises :class:`~augesc_builder.errors.StoreError` where the store does not do it, and
    :class:`~augesc_builder.errors.MissingExtraError` where the package for it is missing.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._opened: dict[tuple[int, int], Any] = {}
        self._root = ""

    def exists(self, key: str) -> bool:
        """Whether there is an object of that name."""
        return self.info(key) is not None

    def info(self, key: str) -> Object | None:
        """Return what is known of an object, or ``None`` where there is none."""
        try:
            found = self._try(lambda fs: fs.info(self._at(key)))
        except FileNotFoundError:
            return None
        return self._object(found) if found.get("type") == "file" else None

    def list(self, below: str, *, deep: bool = False) -> list[Object]:
        """Return the objects right in a folder of keys, or everywhere below it."""
        at = self._at(below)

        def found(fs: Any) -> Iterable[Mapping[str, Any]]:
            every: Iterable[Mapping[str, Any]]
            every = fs.find(at, detail=True).values() if deep else fs.ls(at, detail=True)
            return every

        try:
            files = [info for info in self._try(found) if info.get("type") == "file"]
        except FileNotFoundError:
            return []
        return [each for each in map(self._object, files) if each.key != below]

    def is_empty(self, beside: frozenset[str] = frozenset()) -> bool:
        """Whether nothing lies below the address but in the folders ``beside``."""
        try:
            found = self._try(lambda fs: fs.ls(self._at(""), detail=False))
        except FileNotFoundError:
            return True
        return {name.rstrip("/").rpartition("/")[2] for name in found} <= beside

    def read(self, key: str) -> bytes | None:
        """Return what an object holds; ``None`` where there is none."""
        try:
            return bytes(self._try(lambda fs: fs.cat_file(self._at(key))))
        except FileNotFoundError:
            return None

    def read_several(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return what objects hold, by key; those that are not there are left out."""
        at = {self._at(key): key for key in keys}

        def read(fs: Any) -> dict[str, bytes]:
            found = fs.cat(list(at), on_error="return") if at else {}
            for value in found.values():
                if isinstance(value, Exception) and not isinstance(value, FileNotFoundError):
                    raise value
            return {at[k]: bytes(v) for k, v in found.items() if not isinstance(v, Exception)}

        return self._try(read)

    def get(self, key: str, path: Path) -> bool:
        """Write an object to a file; whether there is one."""
        try:
            self._try(lambda fs: fs.get_file(self._at(key), str(path)))
        except FileNotFoundError:
            return False
        return True

    def put(self, key: str, content: bytes | Path, *, tries: int = _TRIES) -> None:
        """Write an object, in the place of any other of that name."""

        def put(fs: Any) -> None:
            if isinstance(content, Path):
                fs.put_file(str(content), self._at(key))
            else:
                fs.pipe_file(self._at(key), content)

        try:
            self._try(put, tries)
        except FileNotFoundError as error:
            raise self._missing(error) from None

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none of that name; whether this one was first.

        An answer may be lost and the object be there: so ``content`` is what nobody else writes. A
        store without conditional put writes it always.
        """
        try:
            self._try(lambda fs: fs.pipe_file(self._at(key), content, mode="create"))
        except FileExistsError:
            return self.read(key) == content
        except FileNotFoundError as error:
            raise self._missing(error) from None
        except _UNKNOWN:
            self.put(key, content)
        return True

    def copy(self, key: str, to: str) -> bool:
        """Copy an object within the store; whether there is one."""
        try:
            self._try(lambda fs: fs.cp_file(self._at(key), self._at(to)))
        except FileNotFoundError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        try:
            self._try(lambda fs: fs.rm_file(self._at(key)))
        except FileNotFoundError:
            return

    def creates_once(self, below: str) -> bool:
        """Whether :meth:`create` has one winner: found by trying, in turn and at the same time.

        What some libraries do, to look first and then to write, passes the first trial only.
        """
        keys = [f"{below}/{uuid.uuid4().hex}" for _ in range(2)]
        try:
            if not self.create(keys[0], b"1") or self.create(keys[0], b"2"):
                return False
            won, meeting = [], threading.Barrier(_AT_ONCE)
            errors: list[AugescError] = []

            def race(number: int) -> None:
                meeting.wait()
                try:
                    won.append(self.create(keys[1], b"%d" % number))
                except AugescError as error:
                    errors.append(error)

            makers = [threading.Thread(target=race, args=(n,)) for n in range(_AT_ONCE)]
            for maker in makers:
                maker.start()
            for maker in makers:
                maker.join()
            if errors:
                raise errors[0]
            return sum(won) == 1
        finally:
            for key in keys:
                self.delete(key)

    # -- inside ----------------------------------------------------------------------------------

    def _at(self, key: str) -> str:
        self._system()
        return f"{self._root}/{key}" if key else self._root

    def _object(self, info: Mapping[str, Any]) -> Object:
        key = str(info["name"]).removeprefix(self._root).lstrip("/")
        return Object(key, int(info.get("size") or 0), md5(info))

    def _system(self) -> Any:
        """Return the file system; a process of ours that was forked has its own."""
        protocol = self.address.partition("://")[0]
        # What remembers listings is a thread's own: no other one reads what is forgotten here.
        mine = os.getpid(), threading.get_ident() if protocol in REMEMBERING else 0
        if (known := self._opened.get(mine)) is not None:
            if protocol in REMEMBERING:
                known.dircache.clear()
            return known
        try:
            import fsspec

            system = fsspec.filesystem(protocol, use_listings_cache=False, **options(protocol))
        except ImportError:
            raise MissingExtraError(f"{self.address} needs {package(protocol)}") from None
        except ValueError as error:
            if "protocol" in str(error).lower():
                raise StoreError(
                    f"{self.address}: no kind of address that is known is called {protocol!r}; "
                    f"such are s3, gs and hf"
                ) from None
            raise StoreError(f"{self.address}: {short(error)}") from None
        except Exception as error:
            raise StoreError(f"{self.address}: {short(error)}") from None
        self._root = str(system._strip_protocol(self.address)).rstrip("/")
        self._opened[mine] = system
        return system

    def _try(self, what: Callable[[Any], T], tries: int = _TRIES) -> T:
        """Do something, again where it may help; errors that callers know pass as they are."""
        for attempt in range(tries):
            try:
                return what(self._system())
            except AugescError:
                raise
            except (*_FINAL, *_UNKNOWN):
                raise
            except Exception as error:
                if is_forbidden(error):
                    raise StoreError(
                        f"{self.address}: not allowed ({short(error)}); check the keys and their "
                        f"rights: they have to read, write, list and delete there"
                    ) from None
                if status(error) == PRECONDITION:  # not all libraries have a name for it
                    raise FileExistsError from None
                if is_about_keys(error):
                    raise StoreError(
                        f"{self.address}: {short(error)}; give the store's keys as its library "
                        f"takes them, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                    ) from None
                if is_wrong(error):
                    raise StoreError(f"{self.address}: {short(error)}; check the address") from None
                if attempt == tries - 1:
                    raise StoreError(
                        f"{self.address}: no good answer in {tries} tries, the last: "
                        f"{short(error)}; run the same command again when it answers, it resumes "
                        f"where it stopped"
                    ) from None
            wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)
            time.sleep(wait * random.uniform(0.5, 1))  # so that workers part
        raise AssertionError  # the last try has left

    def _missing(self, error: FileNotFoundError) -> StoreError:
        return StoreError(
            f"{self.address}: nothing can be written there ({short(error)}); make the bucket first"
        )
