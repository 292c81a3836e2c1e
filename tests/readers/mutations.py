"""Lines and files as nobody should write them, made of good ones; the same for the same seed."""

from __future__ import annotations

import json
import random
from typing import Any

TOKENS = (
    *(b"\\ud83d", b"\\udc00", b"\xff", b"\xed\xa0\x80", b"\x00", b"\r", b"\xef\xbb\xbf"),
    *(
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\t",
        b" " * 99,
        b"&#",
        b"&#" + b"9" * 5000 + b";",
        b"&#xd800;",
    ),
    *(b"&lt;", b"_comma_", b"9" * 5000, b"1e999", b"-Infinity", b"NaN", b"null", b"true"),
    *(b"[" * 5000, b"{" * 50, b'"', b'""', b'","', b",", b":", b"\\", b"\\u", b"\\n"),
    *(b"@", b"a@b.cc", b"u/you", b"..", b"?!"),
)

VALUES = (
    *(None, True, -1, 0, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 1.5, 1e308, float("nan")),
    *("", " ", "\ud83d", "\x00", "\u2028", "user", "usr", [], {}, [[]], {"role": []}, [None]),
    *(["usr", "x"], {"content": 3}, "&#" + "1" * 5000, "9" * 400, "x" * 5000, "a. " * 300),
)


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """Give every place inside a JSON value: what holds it, and its key there."""
    found: list[tuple[Any, Any]] = []
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        found += [(value, key), *_parts(value[key])]
    return found


def _exchanged(rng: random.Random, line: bytes) -> bytes:
    """Put another value, or another part of the same, at some place of a line of JSON."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line
    places = _parts(value)
    if places:
        holder, key = rng.choice(places)
        other_holder, other = rng.choice(places)
        new = rng.choice(VALUES) if rng.random() < 0.8 else other_holder[other]
        holder[key] = json.loads(json.dumps(new))
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _damaged(rng: random.Random, data: bytes) -> bytes:
    """Change, cut, repeat or insert some bytes."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 8, 40)))
    kind = rng.randrange(5)
    if kind == 0:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[end:]
    if kind == 2:
        return data[:end] + data[at:end] * rng.choice((1, 3)) + data[end:]
    if kind == 3:
        return data[:at] + rng.choice(TOKENS) + data[at:]
    return data[:at] + rng.choice(TOKENS) + data[end:]


def mutate_line(rng: random.Random, line: bytes) -> bytes:
    """Return a line made of a good one, without a line end."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        line = _exchanged(rng, line) if rng.random() < 0.5 else _damaged(rng, line)
    return line.replace(b"\n", b" ")


def mutate_file(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes of a file, damaged or cut off."""
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data) + 1)]
    for _ in range(rng.choice((1, 2, 8))):
        data = _damaged(rng, data)
    return data
