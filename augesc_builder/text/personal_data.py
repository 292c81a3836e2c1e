"""E-mail addresses, phone numbers, user names and long numbers in a text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

_AT_A_HOST = re.compile(
    r"\s?(?:@|\(at\)|\[at\])\s?[\w-]+\s?(?:\.|\(dot\)|\[dot\])\s?[a-z]{2,}", re.IGNORECASE
)
"""An e-mail address from its @ on. What stands before is looked for backwards, from there: a
pattern that begins with it would try every character of a long word as the first."""


_NAME_ENDS = re.compile(r"[^\w.+-]")


_HANDLE = re.compile(r"(?<!\w)(?:@|/?u/)[\w-]{3,}", re.IGNORECASE)


_PHONE = re.compile(
    r"(?<![\d.,/-])\+?\(?\d{2,4}\)?[\s.-]\(?\d{2,4}\)?[\s.-]\d{3,4}(?:[\s.-]\d{1,4})*(?!\d)"
)


_LONG_NUMBER = re.compile(r"(?<![\d.,])\d{7,}")


_DIGIT = re.compile(r"\d")


_DIGITS_OF_A_LONG_NUMBER = 7


_DIGITS_OF_A_PHONE_NUMBER = 9
"""One more than a date has."""


def has_personal_data(text: str) -> bool:
    """Whether a text has an e-mail address, phone number, user name or long run of digits."""
    return next(find_personal_data(text), None) is not None


_SIGNS = ("@", "u/", "(at)", "[at]")


def may_have_personal_data(text: str) -> bool:
    """Whether :func:`find_personal_data` may find anything: faster, and sometimes in vain."""
    return (
        any(sign in text for sign in _SIGNS)
        or len(_DIGIT.findall(text)) >= _DIGITS_OF_A_LONG_NUMBER
    )


def find_personal_data(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of e-mail addresses, phone numbers, user names and long runs of digits."""
    if any(sign in text for sign in _SIGNS):
        emails = list(_emails(text))
        yield from emails
        starts = [start for start, _ in emails]
        for handle in _HANDLE.finditer(text):
            before = bisect_right(starts, handle.start())
            if not before or handle.start() >= emails[before - 1][1]:
                yield handle.span()
    if len(_DIGIT.findall(text)) < _DIGITS_OF_A_LONG_NUMBER:
        return
    yield from (m.span() for m in _LONG_NUMBER.finditer(text))
    for phone in _PHONE.finditer(text):
        if len(_DIGIT.findall(phone.group())) >= _DIGITS_OF_A_PHONE_NUMBER:
            yield phone.span()


def _emails(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of e-mail addresses."""
    backwards, behind = text[::-1], 0
    for host in _AT_A_HOST.finditer(text):
        stop = _NAME_ENDS.search(backwards, len(text) - host.start(), len(text) - behind)
        start = len(text) - stop.start() if stop else behind
        if start < host.start():
            yield start, host.end()
            behind = host.end()
