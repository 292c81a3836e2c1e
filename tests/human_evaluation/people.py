"""People as the server of a study sees them: forms filled in and sent over real sockets."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import httpx


class Server:
    """`augesc study serve` in a process of its own; it can be killed and started again."""

    def __init__(self, study: Path, *options: str, port: int = 0) -> None:
        self.study, self.options, self.port = study, options, port
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "augesc_builder", "study", "serve", str(self.study)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *self.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        said = []
        for line in self.process.stdout:
            said.append(line)
            if found := re.search(r"http://[^/\s]+:(\d+)", line):
                self.port = int(found[1])
                self.address = found[0]
            if line.startswith("Ctrl-C"):
                break
        else:
            raise AssertionError("".join(said))
        self.said = "".join(said)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Ask it to end; give exit code and what it said last."""
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


@dataclass
class Form:
    """A form of a page: where it goes, what it holds as it was drawn, what can be chosen."""

    action: str
    values: dict[str, str] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)
    boxes: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.form: Form | None = None
        self.text: list[str] = []
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "form":
            self.form = Form(given["action"])
        elif tag == "input" and self.form is not None and "name" in given:
            name, value = given["name"], given.get("value", "on")
            if given["type"] == "radio":
                self.form.choices.setdefault(name, []).append(value)
                if "checked" in given:
                    self.form.values[name] = value
            elif given["type"] == "checkbox":
                self.form.boxes.append(name)
            else:
                self.form.values[name] = value

    def handle_data(self, data):
        self.text.append(data)


@dataclass
class Page:
    """What came back: its status, its address after redirections, its form and text."""

    status: int
    address: str
    html: str
    form: Form | None
    text: str

    @property
    def step(self) -> str:
        """The last part of the address: consent, check, the number of a conversation, done."""
        return self.address.rsplit("/", 1)[-1]

    @property
    def heading(self) -> str:
        found = re.search(r"<h1[^>]*>(.*?)</h1>", self.html, re.DOTALL)
        return found[1] if found else ""


def links_of(table: Path) -> dict[str, str]:
    """Read the links that a server wrote, by annotator."""
    with table.open() as file:
        return {row["annotator"]: row["link"] for row in csv.DictReader(file)}


def fill(page: Page, option: Callable[[int], int]) -> dict[str, str]:
    """Choose an option of each question by its number from 0; do what an instructed item says."""
    given = {key: str(option(i)) for i, key in enumerate(page.form.choices)}
    if "attention_check" in given:
        given["attention_check"] = re.search(r"please choose option (\d)", page.text)[1]
    return given


_CLIENTS: list[httpx.Client] = []


def leave_all() -> None:
    """Close the connections of everybody."""
    while _CLIENTS:
        _CLIENTS.pop().close()


class Person:
    """Somebody with a link; a server that is away is asked again until it is back."""

    def __init__(self, address: str, patience: float = 60.0) -> None:
        self.address, self.patience = address, patience
        self.client = httpx.Client(follow_redirects=True, timeout=30, trust_env=False)
        _CLIENTS.append(self.client)
        self.page: Page | None = None
        self.begun: Page | None = None
        """The first conversation as it was first drawn."""
        self.name = ""
        """How the log calls them."""

    def close(self) -> None:
        self.client.close()

    def open(self, address: str | None = None) -> Page:
        return self._ask("GET", address or self.address)

    def send(self, values: dict[str, str], go: str = "on", page: Page | None = None) -> Page:
        """Send the form of the page that is open, or of an older one."""
        page = page or self.page
        body = {**page.form.values, **values, "go": go}
        return self._ask("POST", urljoin(page.address, page.form.action), body)

    def begin(self, page: Page | None = None) -> Page:
        """Agree, and pass the check; give the first conversation."""
        if page is None:
            self.open()
        self.send({"agree": "yes"})
        self.begun = self.check_rightly()
        return self.begun

    def check_rightly(self) -> Page:
        right = ("as a whole", "at any time")
        given = {}
        for name in self.page.form.choices:
            options = re.findall(
                rf'name="{name}" value="(\d)".*?<span dir="auto">([^<]*)', self.page.html, re.DOTALL
            )
            given[name] = next(n for n, text in options if any(said in text for said in right))
        return self.send(given)

    def _ask(self, method: str, address: str, body: dict[str, str] | None = None) -> Page:
        until = time.monotonic() + self.patience
        while True:
            try:
                answer = self.client.request(method, address, data=body)
                break
            except httpx.TransportError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        read = _Reader(answer.text)
        self.page = Page(
            answer.status_code, str(answer.url), answer.text, read.form, "".join(read.text)
        )
        return self.page
