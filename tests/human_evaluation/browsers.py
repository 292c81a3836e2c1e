"""A real browser without a window, for tests of pages; they skip where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

PHONE = {"width": 360, "height": 740}
LAPTOP = {"width": 1366, "height": 768}

SHOTS = os.environ.get("AUGESC_SHOTS")
"""A folder for pictures of the pages, to be looked at by people; empty: none are made."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Give a browser of this machine, or skip the test."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine; Debian's package is called chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(browser: Any, size: dict[str, int] = LAPTOP, **options: Any) -> Iterator[Any]:
    """Give a page in a context of its own, in which any error of a script is one of the test.

    What a page asks of another host, and what its policy of contents refuses, is an error, too.
    """
    context = browser.new_context(viewport=size, **options)
    context.set_default_timeout(int(os.environ.get("AUGESC_WAIT", "60000")))
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on(
        "console",
        lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None,
    )
    page.on(
        "request",
        lambda request: (
            None
            if "//127.0.0.1:" in request.url or request.url.startswith("data:")
            else wrong.append(f"asked for {request.url}")
        ),
    )
    try:
        yield page
    finally:
        context.close()
    assert wrong == []


def shot(page: Any, name: str, *, whole: bool = True) -> None:
    """Take a picture, where somebody wants to look."""
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=whole)
