"""Pairs of utterances of one speaker that clash, and pairs that look like them and do not.

DECODE's file has contradictions only. A classifier that met other texts as its negatives would
learn to tell DECODE from them, so four kinds of negatives look like the positives:

- ``style``: a first and a second utterance of DECODE, each of another pair. They share words, but
  none of those that the second shares with the one it was written against: what it denies is not
  spoken of.
- ``same side``: two first utterances of DECODE that share words, of one polarity.
- ``halves``: what an utterance of DECODE says first, and what it says then.
- ``session``: two utterances of one speaker in a session of ESConv that share words. People do
  contradict themselves there, rarely.

And two kinds are near copies, lest nearness alone decides: an utterance and itself in other words
(``copy``), and the same with its sense turned: negated, with another number, name or relative
(``turned copy``, a contradiction). Some of the strangers have their sense turned too, lest the
marks of turning decide: what is denied there is not what the other one says.

Utterances are of the held-out part, of validation or of training by a hash of DECODE's first one,
or by ESConv's own splits; a pair is never of two parts. To clash is mutual, and either utterance
may come first.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations, islice
from math import log
from pathlib import Path

from augesc_builder.errors import InputError
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.text.prompts import collapse
from augesc_builder.text.words import tokenize

LABELS = CLASH, PEACE = "contradiction", "no_contradiction"
PARTS = ("training", "validation", "held_out")
SHARES = {
    "decode": 40, "turned copy": 12,
    "style": 20, "same side": 6, "halves": 5, "session": 9, "copy": 8,
}  # fmt: skip
"""Of a hundred pairs."""
TURNED = 0.35
"""Share of strangers of one side, halves and pairs of sessions of which one is turned."""
LONGEST = 45
"""Words of an utterance at most: a pair then fits into the tokens that are read."""


@dataclass(frozen=True)
class Example:
    """Two utterances of one speaker, in their order, and how the pair came about."""

    first: str
    second: str
    kind: str

    @property
    def label(self) -> str:
        """Return whether they clash."""
        return CLASH if self.kind in {"decode", "turned copy"} else PEACE


def part_of(text: str) -> str:
    """Return the part of an utterance, by its hash: a tenth each is validation and held out."""
    return {0: "held_out", 1: "validation"}.get(_digest(text) % 10, "training")


def _digest(text: str) -> int:
    return int(sha256(text.encode()).hexdigest(), 16)


# -- words ----------------------------------------------------------------------------------------

_COMMON = """
a an the and or but so if of in on at to for with from by as is are was were be been am do does
did have has had i you he she it we they me him her them my your his its our their this that these
those there here what who how when where why not no n't 's 'm 're 've 'll 'd , . ! ? ; : - ' " ...
can could will would should just really very too also well yes oh ok like get got about all some any
more up out then than because much one
"""
_STOP = frozenset(_COMMON.split())
_NEGATIVE = re.compile(r"\b(?:not?|never|none|nothing|nobody|hate|can't|cannot|\w+n't)\b", re.I)


def content(text: str) -> frozenset[str]:
    """Return the words of an utterance that say what it is about."""
    return frozenset(word for word in tokenize(text.lower()) if word not in _STOP)


def is_negative(text: str) -> bool:
    """Whether an utterance denies something, as far as its words tell."""
    return len(_NEGATIVE.findall(text)) % 2 == 1


def overlap(example: Example) -> float:
    """Return the share of words that two utterances share, which alone tells something."""
    a, b = content(example.first), content(example.second)
    return len(a & b) / max(1, len(a | b))


# -- pairs ----------------------------------------------------------------------------------------


def read_decode(path: Path) -> list[Example]:
    """Read a file of contradictions. Raises :class:`InputError` where it is none."""
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[0].split("\t") if lines else []
    if not {"seg1", "seg2"} <= set(header):
        raise InputError(f"expected columns seg1 and seg2, found {', '.join(header)[:200]}", path)
    first, second = header.index("seg1"), header.index("seg2")
    rows = [line.split("\t") for line in lines[1:]]
    pairs = [(collapse(r[first]), collapse(r[second])) for r in rows if len(r) == len(header)]
    return [Example(a, b, "decode") for a, b in pairs if _fits(a) and _fits(b)]


def _fits(text: str) -> bool:
    return 0 < len(text.split()) <= LONGEST


def strangers(
    decode: Sequence[Example], rng: random.Random, tries: int, *, same_side: bool
) -> Iterator[Example]:
    """Yield pairs of two rows of DECODE that share words and do not clash.

    See the head of this file for the two kinds.
    """
    first = [content(row.first) for row in decode]
    second = first if same_side else [content(row.second) for row in decode]
    # A second utterance is about what it shares with the one that it was written against.
    denied = [a & b for a, b in zip(first, second, strict=True)]
    frequency = Counter(word for words in second for word in words)
    rows_with = defaultdict(list)
    for j, words in enumerate(second):
        if denied[j] or same_side:
            for word in words if same_side else words - denied[j]:
                rows_with[word].append(j)
    weight = {word: log(len(decode) / n) for word, n in frequency.items()}

    def nearness(i: int, j: int) -> float:
        both, every = first[i] & second[j], first[i] | second[j]
        return sum(weight[word] for word in both) / (1 + sum(weight.get(w, 1) for w in every))

    for _ in range(tries):
        i = rng.randrange(len(decode))
        theirs = sorted(word for word in first[i] if len(rows_with.get(word, ())) > 1)
        others = {rng.choice(rows_with[word]) for word in theirs for _ in range(12)}
        if same_side:
            polarity = is_negative(decode[i].first)
            others = {j for j in others if is_negative(decode[j].first) == polarity}
        else:
            others = {j for j in others if not first[i] & denied[j]}
        others = {j for j in others if decode[j].first != decode[i].first}
        if others:
            j = max(sorted(others), key=lambda j: nearness(i, j))
            text = decode[j].first if same_side else decode[j].second
            yield Example(decode[i].first, text, "same side" if same_side else "style")


def halves(decode: Sequence[Example], rng: random.Random, tries: int) -> Iterator[Example]:
    """Yield the two parts of utterances of several sentences."""
    for _ in range(tries):
        row = rng.choice(decode)
        sentences = _sentences(rng.choice((row.first, row.second)))
        if len(sentences) > 1:
            at = rng.randrange(1, len(sentences))
            a, b = " ".join(sentences[:at]), " ".join(sentences[at:])
            if min(len(content(a)), len(content(b))) > 1:
                yield Example(a, b, "halves")


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) +", text)


def of_sessions(files: Sequence[Path]) -> list[Example]:
    """Return pairs of one speaker's utterances in a session that share words."""
    found = []
    for session in (session for file in files for session in read_esconv(file)):
        for role in ("user", "assistant"):
            said = [m["content"] for m in session.messages if m["role"] == role]
            told = [(text, content(text)) for text in said if _fits(text)]
            for (a, words_a), (b, words_b) in combinations(told, 2):
                shared = len(words_a & words_b)
                if shared > 1 and shared / len(words_a | words_b) > 0.15 and a != b:
                    found.append(Example(a, b, "session"))
    return found


# -- near copies ----------------------------------------------------------------------------------

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

_DENIED = "don't didn't doesn't isn't aren't wasn't weren't haven't hasn't hadn't wouldn't couldn't"
_SHORT = {"can't": "can", "won't": "will", "i'm not": "i am"}
_SWAPPED = (
    *("love hate", "always never", "mother father", "mom dad", "sister brother", "son daughter"),
    *("wife husband", "girlfriend boyfriend", "aunt uncle", "grandmother grandfather", "good bad"),
    *("old young", "easy hard", "happy unhappy", "alone together", "started stopped", "cat dog"),
    *("remember forgot", "married single", "everyone nobody", "everything nothing", "all none"),
    *("best worst", "more less", "first last", "before after", "hot cold", "big small", "he she"),
    *("summer winter", "morning evening", "north south", "east west", "boy girl", "man woman"),
    *("left right", "often rarely", "many few", "rich poor", "monday friday", "alive dead"),
)
_OTHER = {a: b for pair in _SWAPPED for a, b in (pair.split(), pair.split()[::-1])}
_HELPERS = "is|are|was|were|am|can|will|should|could|would"
_VERBS = "like|love|have|want|feel|know|think|need|live|work|enjoy|go|see|eat|talk|play|get"


def _number(match: re.Match[str]) -> str:
    n = int(match[0])
    return str(n + 1 + n % 3 if n % 2 or n < 3 else n - 1)


RULES: tuple[Rule, ...] = (
    (re.compile(r"\b\d{1,3}\b"), _number),
    (re.compile(r"\b(?:can't|won't|i'm not)\b", re.I), lambda m: _SHORT[m[0].lower()]),
    (re.compile(rf"\b(?:{'|'.join(_DENIED.split())})\b", re.I), lambda m: m[0][:-3]),
    (re.compile(rf"\b({_HELPERS}) not\b", re.I), r"\1"),
    (re.compile(rf"\b({_HELPERS})\b(?! not|n't)", re.I), r"\1 not"),
    (re.compile(r"\b(i'm|it's|he's|she's|they're|you're|we're)\b(?! not)", re.I), r"\1 not"),
    (re.compile(rf"\b(i|you|we|they) (?:really |do )?({_VERBS})\b", re.I), r"\1 don't \2"),
    (re.compile(r"\b(i|he|she|we|they) (had|went|got|felt|saw|was)\b", re.I), r"\1 never \2"),
    (re.compile(rf"\b(?:{'|'.join(_OTHER)})\b", re.I), lambda m: _OTHER[m[0].lower()]),
)
"""Ways to turn the sense of an utterance: numbers, negations put in and left out, opposites."""

_PLAINER = (
    *(("don't", "do not"), ("can't", "cannot"), ("I'm", "I am"), ("it's", "it is")),
    *(("I've", "I have"), ("didn't", "did not"), ("really ", ""), ("very ", ""), ("just ", "")),
    *(("mom", "mother"), ("dad", "father"), ("kids", "children"), ("great", "wonderful")),
    *(
        ("job", "work"),
        ("scared", "afraid"),
        ("happy", "glad"),
        ("movie", "film"),
        ("hard", "tough"),
    ),
    *(
        ("enjoy", "like"),
        ("awesome", "cool"),
        ("also ", ""),
        ("a lot", "very much"),
        ("maybe", "perhaps"),
    ),
    *(("want to", "would like to"), ("that is", "that's"), ("awful", "terrible"), ("so ", "")),
)
_LEADS = (
    *("Yes, ", "Well, ", "I mean, ", "As I said, ", "Like I told you, ", "You know, ", "Oh, "),
    *("So ", "Honestly, ", "Sorry, ", "Hmm, ", "I think ", "Again, ", "Please, "),
)
_TAILS = (", you know", ", I think", ", to be honest", " right now", ", of course", ", as I said")
_STRESS = re.compile(rf"\b([Ii]|we|they) (?=(?:{_VERBS})\b)")
_STRESSES = ("really", "definitely", "certainly", "do", "truly", "still")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b")


def turned(text: str, rng: random.Random, names: Sequence[str] = ()) -> str | None:
    """Return an utterance with its sense turned; ``None`` where no rule knows how.

    A name becomes one of ``names``.
    """
    asked = [m.span() for m in re.finditer(r"[^.!?]*\?", text)]
    named: tuple[Rule, ...] = ((_NAME, lambda _: rng.choice(names)),) if names else ()
    rules = (*RULES, *named)
    ways = [
        (rule, m)
        for rule in rules
        for m in rule[0].finditer(text)
        if not any(start <= m.start() < end for start, end in asked)
    ]
    if not ways:
        return None
    rule = rng.choice(sorted({id(rule): rule for rule, _ in ways}.values(), key=rules.index))
    match = rng.choice([m for each, m in ways if each is rule])
    new = match.expand(rule[1]) if isinstance(rule[1], str) else rule[1](match)
    return text[: match.start()] + new + text[match.end() :]


def copied(text: str, rng: random.Random) -> str:
    """Return an utterance as the same speaker may say it again: of the same sense."""
    sentences = _sentences(text)
    if len(sentences) > 1 and rng.random() < 0.5:
        sentences.pop(rng.randrange(len(sentences)))
    if rng.random() < 0.2:
        rng.shuffle(sentences)
    text = " ".join(sentences)
    for old, new in _PLAINER:
        if rng.random() < 0.5:
            text = re.sub(rf"\b{old}", new, text)
    if rng.random() < 0.2:
        stress = rng.choice(_STRESSES)
        text = _STRESS.sub(lambda m: f"{m[0]}{stress} ", text, count=1)
    if rng.random() < 0.4:
        text = rng.choice(_LEADS) + text
    if rng.random() < 0.15:
        text = text.rstrip(" .!") + rng.choice(_TAILS)
    return text.lower() if rng.random() < 0.3 else text.rstrip(" .!")


def copies(
    texts: Sequence[str], rng: random.Random, tries: int, *, turn: bool
) -> Iterator[Example]:
    """Yield utterances and their near copies."""
    names = sorted({name for text in texts for name in _NAME.findall(text)})
    for _ in range(tries):
        text = rng.choice(texts)
        again = copied(text, rng)
        second = turned(again, rng, names) if turn else again
        if second is not None and second != text and len(content(again)) > 1:
            yield Example(text, second, "turned copy" if turn else "copy")


# -- parts ----------------------------------------------------------------------------------------


def make_part(
    n: int, decode: Sequence[Example], sessions: Sequence[Example], seed: str
) -> list[Example]:
    """Return ``n`` pairs, or as many as there are, of the kinds by their shares, shuffled."""
    rng = random.Random(seed)
    wanted = {kind: n * share // 100 for kind, share in SHARES.items()}
    texts = [row.first for row in decode] + [row.first for row in sessions]
    made = {
        "style": strangers(decode, rng, 20 * n, same_side=False),
        "same side": strangers(decode, rng, 20 * n, same_side=True),
        "halves": halves(decode, rng, 20 * n),
        "copy": copies(texts, rng, 20 * n, turn=False),
        "turned copy": copies(texts, rng, 20 * n, turn=True),
    }
    chosen = rng.sample(list(decode), min(wanted["decode"], len(decode)))
    chosen += rng.sample(list(sessions), min(wanted["session"], len(sessions)))
    for kind, pairs in made.items():
        chosen += islice(pairs, wanted[kind])
    chosen = [_with_marks(pair, rng) for pair in chosen]
    turns = [(e, rng.sample((e.first, e.second), 2)) for e in chosen]
    either = [Example(a, b, e.kind) for e, (a, b) in turns]
    return rng.sample(either, len(either))


def _with_marks(pair: Example, rng: random.Random) -> Example:
    """Return a pair of strangers with one of them turned, by chance."""
    if pair.kind not in {"same side", "halves", "session"} or rng.random() >= TURNED:
        return pair
    second = turned(pair.second, rng)
    return pair if second is None else Example(pair.first, second, pair.kind)
