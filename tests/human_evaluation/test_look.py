"""The look that pages share: what is handed out, under which headers, and how it can be read."""

from __future__ import annotations

import re

import jinja2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from augesc_builder.errors import ServeError
from augesc_builder.human_evaluation.pages.drawing import (
    FOLDER,
    as_shown,
    error_pages,
    page,
    render,
    static_routes,
)
from augesc_builder.human_evaluation.pages.serving import HEADERS, LOOPBACK, Guarded, listen

READ = [
    *((text, ground) for text in ("ink", "muted", "accent", "warn", "good")
      for ground in ("ground", "surface", "soft")),
    *(("ink", "seeker"), ("ink", "supporter"), ("muted", "ground"), ("mark-ink", "mark")),
    *(("on-accent", "accent"), ("warn", "warn-soft"), ("ink", "warn-soft")),
]  # fmt: skip
"""Colours of text, each on a ground that it stands on."""


def colours() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", (FOLDER / "look.css").read_text(), re.DOTALL)
    pairs = [dict(re.findall(r"--([\w-]+): (#\w{6});", text)) for text in (light, dark)]
    return {"light": pairs[0], "dark": pairs[1]}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, 1.4.3."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_edges_have_the_contrast_of_wcag_aa(scheme):
    found = colours()[scheme]
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert {pair: round(contrast(*(found[name] for name in pair)), 2) for pair in READ
            if contrast(*(found[name] for name in pair)) < 4.5} == {}  # fmt: skip
    assert contrast(found["edge"], found["surface"]) >= 3  # what a field is known by
    assert contrast(found["accent"], found["ground"]) >= 3  # what shows where the focus is


def app(**handlers):
    routes = [Route(f"/{name}", handler, methods=["GET", "POST"])
              for name, handler in handlers.items()]  # fmt: skip
    return Starlette(routes=[*routes, *static_routes()], exception_handlers=error_pages())


def test_every_answer_has_the_headers_and_no_file_but_ours_is_handed_out():
    def own(_):
        return PlainTextResponse("x", headers={"Cache-Control": "no-cache"})

    def broken(_):
        raise RuntimeError

    served = Guarded(app(own=own, broken=broken))
    client = TestClient(served, "http://localhost", raise_server_exceptions=False)
    (style,) = re.findall(r'"(/static/look.css\?v=\w{16})"', render("message", title="x", text=""))
    for path, status in {
        "/own": 200, "/broken": 500, style: 200, "/nowhere": 404, "/static/base.html.j2": 404,
        "/static/..%2fdrawing.py": 404, "/static/../__init__.py": 404, "/static/": 404,
    }.items():  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == status, path
        kept = {"/own": "no-cache", style: "public, max-age=31536000, immutable"}
        expected = HEADERS | {"Cache-Control": kept.get(path, "no-store")}
        assert {name: answer.headers[name] for name in expected} == expected
    assert "Traceback" not in client.get("/broken").text
    assert client.get(style).headers["content-type"] == "text/css; charset=utf-8"


def test_templates_hold_nothing_that_the_headers_forbid():
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]
    for path in FOLDER.glob("*.html.j2"):
        text = path.read_text()
        assert re.findall(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", text) == [], path
        assert re.findall(r"https?://(?!findahelpline\.com)|//cdn", text) == [], path
    assert re.findall(r"url\(|@import", (FOLDER / "look.css").read_text()) == []


def test_a_form_that_is_too_long_and_a_foreign_host_are_refused():
    async def read(request: Request):
        return PlainTextResponse(str(len(await request.body())))

    client = TestClient(Guarded(app(read=read), LOOPBACK), "http://localhost")

    def pieces(n):
        yield from [b"x" * 1024] * n

    assert client.post("/read", content=b"x" * (1 << 20)).text == str(1 << 20)
    assert client.post("/read", content=b"x" * ((1 << 20) + 1)).status_code == 413
    assert client.post("/read", content=pieces(1024)).text == str(1 << 20)
    assert client.post("/read", content=pieces(1025)).status_code == 413
    for host, status in {"localhost:81": 200, "127.0.0.1": 200, "[::1]:9": 200, "a.example": 421,
                         "127.0.0.1.a.example:80": 421, "": 421}.items():  # fmt: skip
        assert client.post("/read", headers={"host": host}).status_code == status, host


def test_strangers_text_is_text():
    evil = '<script>alert(1)</script>" onclick="x {{ 7 * 7 }} &amp; \x00\x1b[2J\u202e\ud800'
    drawn = render("message", title=evil, text=evil)
    assert "<script>alert" not in drawn
    assert (
        "&lt;script&gt;alert(1)&lt;/script&gt;&#34; onclick=&#34;x {{ 7 * 7 }} &amp;amp;" in drawn
    )
    assert r"\x00\x1b[2J\u202e\ud800" in drawn
    assert page("message", title=evil, text=evil).status_code == 200
    assert as_shown("שלום\u200f\u2068x\u2069\t\n") == "שלום\u200f\u2068x\u2069\t\n"


def test_a_slot_without_a_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        render("message", text="")


def test_bubbles_show_who_speaks_and_what_is_flagged():
    source = '{% from "bubbles.html.j2" import bubbles %}{{ bubbles(said, pieces=pieces) }}'
    from augesc_builder.human_evaluation.pages.drawing import _templates

    said = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "<c>\nd"}]
    drawn = _templates().from_string(source).render(
        said=said, pieces=[[("a", []), ("b", ["crisis", "<x>"])], [("<c>\nd", [])]]
    )  # fmt: skip
    assert re.findall(r'class="turn (\w+)"', drawn) == ["seeker", "supporter"]
    assert '>a<mark title="crisis, &lt;x&gt;">b<span class="flag">' in drawn
    assert ">&lt;c&gt;\nd</p>" in drawn


def test_a_port_that_is_taken_is_one_line():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port}: something else listens there; give an"):
            listen("127.0.0.1", port)
    for host, number in {"127.0.0.1": 70_000, "nowhere.invalid": 0, "x" * 300: 0}.items():
        with pytest.raises(ServeError, match="cannot listen at"):
            listen(host, number)
