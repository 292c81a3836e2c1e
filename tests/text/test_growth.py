"""How the time for a text grows with its length: with the length, and not with its square.

Times are compared with each other, and are this thread's own: that of a text four times as long is
less than eight times as long, where a square would make it sixteen.
"""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.config.recipe import load_recipe
from augesc_builder.human_evaluation.view import _literal
from augesc_builder.metrics.content_words import content_words
from augesc_builder.metrics.informativeness.facts import facts
from augesc_builder.pipeline.filter.measure import _RoleWords
from augesc_builder.pipeline.queries.rules import load_rules
from augesc_builder.text import personal_data, words
from augesc_builder.text.chat_template import ChatTemplate
from augesc_builder.text.danger import DangerLexicon
from augesc_builder.text.farewell import goodbye
from augesc_builder.text.personal_data import find_personal_data
from augesc_builder.text.prompts import collapse, parse
from augesc_builder.text.safety import LexiconScanner
from tests.conftest import often
from tests.test_architecture import modules

SHORT, TIMES = 2_000, 4
_SOON = 0.002
"""Seconds for a short text, and five times that for one five times as long, behind which no square
hides: it would take twenty-five times as long."""


def seconds(function: Callable[[str], object], text: str) -> float:
    begun = time.thread_time()
    function(text)
    return time.thread_time() - begun


def grows_too_fast(function: Callable[[str], object], begin: str, pump: str, end: str) -> bool:
    """Whether the time for ``pump``, repeated, grows like a square; a slow moment is no proof."""

    def text(n: int) -> str:
        return begin + pump * (n // len(pump)) + end

    n = SHORT // 2
    if seconds(function, text(SHORT)) < _SOON:
        if seconds(function, text(5 * SHORT)) < 5 * _SOON:
            return False
        n = 5 * SHORT // TIMES
    for _ in range(4):
        short = min(seconds(function, text(n)) for _ in range(3))
        if seconds(function, text(TIMES * n)) < 2 * TIMES * short:
            return False
    return True


# -- patterns ------------------------------------------------------------------------------------


def calls_of_re() -> Iterator[tuple[str, str, ast.Call]]:
    """Give every call of ``re`` in the package: its module, the place in it, the call."""

    def visit(node: ast.AST, module: str, place: str) -> Iterator[tuple[str, str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            inside = place
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                inside = f"{place}.{child.name}"
            if isinstance(child, ast.Call) and _function(child) != "":
                yield module, inside, child
            yield from visit(child, module, inside)

    for module, path in modules().items():
        if module.startswith("augesc_builder"):
            yield from visit(ast.parse(path.read_text()), module, module)


def _function(call: ast.Call) -> str:
    """Name the function of ``re`` that is called; nothing where it is none of those."""
    match call.func:
        case ast.Attribute(value=ast.Name(id="re"), attr=name) if name != "escape":
            return name
    return ""


NOT_FOR_DATA = {
    "augesc_builder.text.folding.Folder._uncensored": "tried on our own words",
    "augesc_builder.config.published.without_paths": "of a recipe",
    "augesc_builder.readers.hub.resolve_model": "of a recipe",
    "augesc_builder.engine.memory.available_memory": "of the kernel",
    "augesc_builder.models.token_codec.TokenCodec.mark": "tried on what a chat template writes",
}
"""Calls that see nothing that a stranger wrote."""

MADE_AT_RUN_TIME = {
    "augesc_builder.human_evaluation.view._literal": [_literal("(a+)+$")],
    "augesc_builder.text.danger._Phrase.pattern": [
        phrase.pattern
        for pair in DangerLexicon(hints=True)._signs
        for phrases in pair
        for some in list(phrases._by_word.values())[::20]
        for phrase in some[:1]
    ],
    "augesc_builder.text.lexicon.PhraseMatcher.__init__": [
        matcher._pattern
        for matcher in vars(LexiconScanner()).values()
        if hasattr(matcher, "_pattern")
    ],
    "augesc_builder.pipeline.filter.measure._RoleWords.__init__": [
        _RoleWords(("Human", "AI"))._pattern
    ],
    "augesc_builder.text.farewell.goodbye": [goodbye(["bye", "bye-bye"])],
    "augesc_builder.text.chat_template.ChatTemplate._ends": [
        *ChatTemplate(
            "", {"user": "\ud800: ", "assistant": "\ud801: "}, {"user": ".\n", "assistant": "\n"}
        )._ends.values()
    ],
}
"""Patterns that no module holds, by the function that makes them."""


Use = tuple[re.Pattern[str], str]
"""A pattern, and the method that it is used by: the same may be slow by one and not by another."""


def patterns() -> dict[str, list[Use]]:
    """Give every pattern of the package that is applied to data, by the place of its call."""
    found: dict[str, list[Use]] = {}
    for module, place, call in calls_of_re():
        if place in NOT_FOR_DATA:
            continue
        if place in MADE_AT_RUN_TIME:
            found[place] = [(pattern, "finditer") for pattern in MADE_AT_RUN_TIME[place]]
            continue
        code = compile(ast.Expression(call), module, "eval")
        try:
            pattern = eval(code, dict(vars(importlib.import_module(module))))
        except NameError:
            found[place] = []
            continue
        text = modules()[module].read_text()
        name = text.splitlines()[call.lineno - 1].partition(" = ")[0].strip()
        used = set(re.findall(rf"\b{name}\.(\w+)\(", text)) if name.isidentifier() else set()
        anchored = used & {"match", "fullmatch"}
        found[f"{module}:{call.lineno}"] = [
            (pattern, method)
            for method in (anchored if used and used == anchored else ["finditer"])
        ]
    return found


PATTERNS = patterns()


def test_patterns_are_compiled_where_they_are_found_here():
    inline = {
        f"{place}: re.{_function(call)}"
        for _, place, call in calls_of_re()
        if _function(call) != "compile" and place not in NOT_FOR_DATA
    }
    assert inline == set(), "compile it in the module: what is not found here is not measured"
    made = {place for place, uses in PATTERNS.items() if not uses}
    assert made == set(), "name it in MADE_AT_RUN_TIME, or NOT_FOR_DATA"
    found = {pattern.pattern for uses in PATTERNS.values() for pattern, _ in uses}
    assert {personal_data._AT_A_HOST.pattern, words._IS_ODD.pattern} < found
    assert len(PATTERNS) > 20


def samples(tree: Any) -> str:
    """Give a text that a parsed pattern matches, or nearly does: the first of every choice."""
    said = []
    for kind, value in tree:
        name = str(kind)
        if name == "LITERAL":
            said.append(chr(value))
        elif name == "NOT_LITERAL":
            said.append("x" if value != ord("x") else "y")
        elif name == "ANY":
            said.append("x")
        elif name == "IN":
            said.append(_member(value))
        elif name in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            low, _, inner = value
            said.append(samples(inner) * max(1, low))
        elif name == "SUBPATTERN":
            said.append(samples(value[-1]))
        elif name == "ATOMIC_GROUP":
            said.append(samples(value))
        elif name == "BRANCH":
            said.append(samples(value[1][0]))
    return "".join(said)


_CATEGORY = {"DIGIT": "1", "SPACE": " ", "WORD": "a", "NOT_DIGIT": "a", "NOT_WORD": "-"}


def _member(members: Any) -> str:
    """Give a character of a class."""
    if str(members[0][0]) == "NEGATE":
        return next(
            c for c in "x \n0-" if c not in {chr(v) for k, v in members[1:] if k == "LITERAL"}
        )
    kind, value = members[0]
    if str(kind) == "CATEGORY":
        return _CATEGORY.get(str(value).removeprefix("CATEGORY_"), "x")
    return chr(value if str(kind) == "LITERAL" else value[0])


def attacks(pattern: re.Pattern[str]) -> Iterator[tuple[str, str, str]]:
    """Give beginnings, what is repeated, and ends, made of what the pattern looks for."""
    parser = getattr(re, "_parser", None) or importlib.import_module("sre_parse")
    sample = samples(parser.parse(pattern.pattern, pattern.flags))[:40]
    letters = dict.fromkeys(["a", "1", " ", "\n", ".", *sample[:4], *sample[-4:]])
    pumps = [*letters, *(f"{letter} " for letter in letters), sample, sample[:-1], f"{sample} "]
    begins = dict.fromkeys(["", sample, sample[:-1], sample[:4]])
    for begin in begins:
        for pump in filter(None, dict.fromkeys(pumps)):
            for end in ("", "\x00"):
                yield begin, pump, end


def applied(pattern: re.Pattern[str], method: str = "finditer") -> Callable[[str], object]:
    if method == "finditer":
        return lambda text: [None for _ in pattern.finditer(text)]
    return getattr(pattern, method)


@pytest.mark.parametrize("place", PATTERNS)
def test_no_pattern_grows_like_a_square(place):
    slow = [
        (pattern.pattern[:80], attack)
        for pattern, method in PATTERNS[place]
        for attack in attacks(pattern)
        if grows_too_fast(applied(pattern, method), *attack)
    ]
    assert slow == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"[\w.+-]+\s?@\s?[\w-]+",  # e-mail addresses as they once were looked for
        r"\b(?:edit|update)\s*\d*\s*:",
        r"\s+([.,])",
    ],
)
def test_a_square_would_be_found(pattern):
    compiled = re.compile(pattern)
    assert any(grows_too_fast(applied(compiled), *attack) for attack in attacks(compiled))


EMAIL = re.compile(
    r"[\w.+-]+\s?(?:@|\(at\)|\[at\])\s?[\w-]+\s?(?:\.|\(dot\)|\[dot\])\s?[a-z]{2,}", re.IGNORECASE
)
"""What an e-mail address is: clear, and slow."""


@settings(max_examples=often(2000))
@given(st.lists(st.sampled_from((*"a.@-+! ", "bb", "(at)", "[dot]")), max_size=14))
def test_e_mail_addresses_are_those_of_one_pattern(parts):
    text = "".join(parts)
    assert list(personal_data._emails(text)) == [found.span() for found in EMAIL.finditer(text)]


# -- what is made of patterns and loops ----------------------------------------------------------

RULES = load_rules(load_recipe("paper").queries.reddit)
SCANNER = LexiconScanner()

FUNCTIONS: dict[str, Callable[[str], object]] = {
    "personal data": lambda text: list(find_personal_data(text)),
    "rules": RULES.reasons,
    "words": words.count,
    "words by NLTK": words.tokenize_with_nltk,
    "safety, the seeker": lambda text: SCANNER.scan([{"role": "user", "content": text}]),
    "safety, the supporter": lambda text: SCANNER.scan([{"role": "assistant", "content": text}]),
    "danger": DangerLexicon(hints=True).find,
    "conversations": parse,
    "blanks": collapse,
    "content words": content_words,
    "facts": lambda text: list(facts(text)),
}

TEXTS = (
    *("a", "A", "1", ".", "?!", "?! ", "? \n", "a@", "@", "@a.bb ", "a @bb.cc ", "a.", "u/you "),
    *("(at)", "1 2 3 ", "12 123 ", "try prozac ", "prozac take ", "i want to die ", "not "),
    *("you should kill yourself ", "kill yourself ", "i will not kill myself ", "go for it "),
    *("edit 1 ", "edit", "\n", " ", "' ", '" ', "Human: x\n", "AI:", "- ", "but ", "and i "),
    *("1 Ab Ab ", "..", "don't ", "\u200b", "x ", "\u00e9", "[image]", ".com", "a.com "),
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_grows_like_a_square(name):
    function = FUNCTIONS[name]
    beginnings = ("", "me@", "i want to kill myself and ")
    slow = [
        (begin, pump)
        for begin in beginnings
        for pump in TEXTS
        if grows_too_fast(function, begin, pump, " me@x")
    ]
    assert slow == []


@pytest.mark.parametrize("pump", ["? \n", "?! ", "\t.", "a \n", "x", "'", "a.b "])
def test_a_quarter_of_a_megabyte_has_words(pump):
    text = pump * (250_000 // len(pump))
    assert words.count(text) > 0
