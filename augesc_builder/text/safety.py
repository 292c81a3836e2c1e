"""The safety pass: every session is scanned for ethical risks that readers must know (section 6.2).

A scanner returns flags with the span of characters that raised them. Whoever says it:

- ``crisis``: suicide, self-harm, an overdose, or harm that somebody has in mind for others
- ``abuse``: violence, threats or cruelty by relatives, partners and others who are close
- ``sexual_violence``: rape, sexual abuse, coercion
- ``eating_disorder``: starving, purging, and what goes with them
- ``medical_advice``: advice to take or leave a medicine or a test, by the supporter
- ``harmful_agreement``: the supporter encourages a harmful act, or agrees with the seeker's
- ``personal_data``: an e-mail address, phone number, user name, long number or street address

:class:`LexiconScanner` finds words and phrases of ``lexicons/danger.yaml`` (the first four) and
``lexicons/safety.yaml`` that no negation stands in front of. It knows no context beyond that: its
flags are for a person to look at, and what it does not flag is not thereby safe. How often it is
right is measured on sentences made for that by ``benchmarks/safety.py``. :class:`ClassifierScanner`
does the same by a model, and :class:`DangerScanner` looks at what a person writes to a program.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from augesc_builder.config.recipe import SafetyClassifier
from augesc_builder.tables import SESSIONS, plain_schema
from augesc_builder.text.danger import KINDS, DangerLexicon
from augesc_builder.text.lexicon import PhraseMatcher, bare_words, own_lexicon
from augesc_builder.text.personal_data import find_personal_data, may_have_personal_data
from augesc_builder.text.prompts import Message

FLAGS = (
    *("crisis", "abuse", "sexual_violence", "eating_disorder"),
    *("medical_advice", "harmful_agreement", "personal_data"),
)
"""What :class:`LexiconScanner` raises."""

_FLAG_OF = {kind: kind if kind in FLAGS else "crisis" for kind in KINDS}

WINDOW = 5
"""Words before a phrase among which a negation counts."""

_NEXT = 3
"""The same before a sign of danger: "I can't take it any more, I want to die" is no negation."""

_ADVICE_WINDOW = 6
"""Words between advice and what is advised."""

_REACH, _SENTENCE = 250, 1000
"""Characters of a sentence that are looked at around a phrase, and before one that is intended:
without an end to that, the time for a text without full stops grows with its square or cube."""

_OPENING = 3
"""Words that an answer may have in front of its agreement, such as "yes, I think"."""

_SENTENCE_END = re.compile(r"[.!?\n]+")
_CLAUSE_END = re.compile(
    r"[,;:()\u2013\u2014]|\b(?:but|because|though|although|so|yet|then|if|when|and\s+i|and\s+you)\b"
)
_STREETS = (
    *("Street", "St", "Avenue", "Ave", "Road", "Rd", "Lane", "Ln", "Drive"),
    *("Boulevard", "Blvd", "Court", "Way"),
)
_STREET = re.compile(rf"\b\d{{1,5}}\s(?:[A-Z][a-z]+\s){{1,3}}(?:{'|'.join(_STREETS)})\b")
_STREET_WORDS = frozenset(map(str.lower, _STREETS))
_WORD = re.compile(r"[\w']+")


class Flag(NamedTuple):
    """A flag, the number of its utterance from 0, and the span of its characters there."""

    flag: str
    utterance: int
    start: int
    end: int


class Scanner(Protocol):
    """Whatever flags sessions."""

    def scan(self, messages: Sequence[Message]) -> list[Flag]:
        """Return the flags of one session, in order."""


class LexiconScanner:
    """Finds phrases of the bundled lexicons, but for those negated or meant otherwise."""

    def __init__(self) -> None:
        lists = own_lexicon("safety.yaml")
        forms = lists["forms"]
        medicines = own_lexicon("medications.yaml")

        def phrases(*names: str) -> PhraseMatcher:
            return PhraseMatcher([entry for name in names for entry in lists[name]], forms)

        self._danger = DangerLexicon(hints=False)
        self._advice = phrases("advice")
        self._medical = PhraseMatcher([*medicines, *lists["remedies"]], forms)
        self._acts, self._intention = phrases("harmful_acts"), phrases("intention")
        self._encouragement, self._agreement = phrases("encouragement"), phrases("agreement")
        self._negations, self._not_negations = phrases("negations"), phrases("not_negations")

    def scan(self, messages: Sequence[Message]) -> list[Flag]:
        """Return the flags of one session, in order."""
        found: list[Flag] = []
        personal = may_have_personal_data("\n".join(message["content"] for message in messages))
        intended = False  # did the seeker just speak of a harmful act in mind?
        for i, message in enumerate(messages):
            raw = message["content"]
            text = _plain(raw)
            words = frozenset(bare_words(text))
            acts = self._acts.may_stand_in(words)
            spans: list[tuple[str, tuple[int, int]]] = []
            spans += self._dangers(raw, text, words)
            if message["role"] == "user":
                intended = acts and self._intends(text)
            else:
                if self._medical.may_stand_in(words):
                    spans += [("medical_advice", span) for span in self._medical_advice(text)]
                if acts:
                    spans += [("harmful_agreement", span) for span in self._encouraged(text)]
                if intended and (span := self._agrees(text)):
                    spans.append(("harmful_agreement", span))
                intended = False
            if personal:
                spans += [("personal_data", span) for span in find_personal_data(raw)]
            if not words.isdisjoint(_STREET_WORDS):
                spans += [("personal_data", m.span()) for m in _STREET.finditer(raw)]
            found += [Flag(flag, i, *span) for flag, span in spans]
        return found

    def _dangers(
        self, raw: str, text: str, words: frozenset[str]
    ) -> Iterator[tuple[str, tuple[int, int]]]:
        reached: dict[str, int] = {}
        for sign in self._danger.find(raw, words):
            flag = _FLAG_OF[sign.kind]
            if sign.start >= reached.get(flag, 0) and not self._negated(text, sign.start, _NEXT):
                reached[flag] = sign.end
                yield flag, (sign.start, sign.end)

    def _medical_advice(self, text: str) -> Iterator[tuple[int, int]]:
        for start, end in self._medical.find(text):
            first = _sentence_start(text, start)
            sentence = text[first : _sentence_end(text, end)]
            for span in self._advice.find(sentence):
                a, b = first + span[0], first + span[1]
                between = text[b:start] if b <= start else text[end:a]
                if len(_WORD.findall(between)) <= _ADVICE_WINDOW and not self._negated(text, start):
                    yield min(a, start), max(b, end)
                    break

    def _encouraged(self, text: str) -> Iterator[tuple[int, int]]:
        for start, end in self._acts.find(text):
            first, last = _sentence_start(text, start), _sentence_end(text, end)
            for span in self._encouragement.find(text[first:last]):
                a, b = first + span[0], first + span[1]
                between = text[b:start] if b <= start else text[end:a]
                near = len(_WORD.findall(between)) <= WINDOW and (b <= start or end <= a)
                if near and not self._negated(text, start) and not self._negated(text, a):
                    yield min(a, start), max(b, end)
                    break

    def _intends(self, text: str) -> bool:
        for start, _ in self._acts.find(text):
            said = text[_sentence_start(text, start, _SENTENCE) : start]
            if self._intention.found_in(said) and not self._negated(text, start):
                return True
        return False

    def _agrees(self, text: str) -> tuple[int, int] | None:
        """Return the span of the agreement in the first sentence, if there is one."""
        start = len(text) - len(text.lstrip())
        end = _sentence_end(text, start)
        for a, b in self._agreement.find(text[start:end]):
            if len(_WORD.findall(text[start : start + a])) <= _OPENING and not self._negated(
                text, a + start
            ):
                return start + a, start + b
        return None

    def _negated(self, text: str, start: int, reach: int = WINDOW) -> bool:
        """Whether a negation stands among the last ``reach`` words of the clause before."""
        before = text[_sentence_start(text, start) : start]
        ends = [m.end() for m in _CLAUSE_END.finditer(before)]
        clause = before[ends[-1] if ends else 0 :]
        words = list(_WORD.finditer(clause))
        window = clause[words[-reach].start() if len(words) > reach else 0 :]
        spans = list(self._negations.find(window))
        if not spans:
            return False
        void = list(self._not_negations.find(window))
        return any(not any(a <= x and y <= b for a, b in void) for x, y in spans)


class DangerScanner:
    """Finds all signs of danger that a person gives, hints too: made to miss little.

    No negation silences it ("I am not okay, I want to end my life"), so it raises false alarms. The
    flags are the kinds of :data:`~augesc_builder.text.danger.KINDS`.
    """

    def __init__(self) -> None:
        self._danger = DangerLexicon(hints=True)

    def scan(self, messages: Sequence[Message]) -> list[Flag]:
        """Return the flags of what the user says, in order; a sign may begin a message before."""
        found: list[Flag] = []
        before = ""
        for i, message in enumerate(messages):
            if message["role"] == "user":
                new = len(before) + 1
                found += (
                    Flag(sign.kind, i, max(sign.start - new, 0), sign.end - new)
                    for sign in self._danger.find(f"{before} {message['content']}")
                    if sign.end > new
                )
                before = message["content"]
        return found


class ClassifierScanner:
    """Flags utterances by a text classifier of ``transformers``; a span is a whole utterance.

    Raises :class:`~augesc_builder.errors.CheckpointError` where it cannot be loaded, or lacks a
    label that the recipe names.
    """

    def __init__(self, settings: SafetyClassifier) -> None:
        from augesc_builder.models.text_classifier import load_classifier

        self._settings = settings
        self._model, self.revision = load_classifier(
            settings.model, settings.revision, set(settings.labels), "safety.classifier.model"
        )

    def scan(self, messages: Sequence[Message]) -> list[Flag]:
        """Return the flags of one session, in order."""
        texts = [message["content"] for message in messages]
        results = self._model(
            texts, top_k=None, function_to_apply="sigmoid", truncation=True, batch_size=32
        )
        return [
            Flag(self._settings.labels[label], i, 0, len(text))
            for i, (text, result) in enumerate(zip(texts, results, strict=True))
            for label, score in ((str(r["label"]).lower(), float(r["score"])) for r in result)
            if label in self._settings.labels and score >= self._settings.threshold
        ]


class Scanners:
    """Several scanners as one."""

    def __init__(self, scanners: Sequence[Scanner]) -> None:
        self._scanners = scanners

    def scan(self, messages: Sequence[Message]) -> list[Flag]:
        """Return the flags of all, by utterance."""
        found = [flag for scanner in self._scanners for flag in scanner.scan(messages)]
        return sorted(found, key=lambda flag: (flag.utterance, flag.start))


def scanner_of(classifier: SafetyClassifier | None) -> Scanner:
    """Return the scanner of a recipe."""
    lexicon = LexiconScanner()
    return Scanners([lexicon, ClassifierScanner(classifier)]) if classifier else lexicon


def flag_sessions(sessions: pa.Table, scanner: Scanner) -> tuple[pa.Table, dict[str, Any]]:
    """Return a sessions table with ``safety_flags`` filled, and the counts of the flags.

    A background is scanned as what the seeker says before all else: as utterance -1.
    """
    flags = [
        [flag._asdict() for flag in _scanned(scanner, background, messages)]
        for background, messages in zip(
            sessions["background"].to_pylist(), sessions["messages"].to_pylist(), strict=True
        )
    ]
    number = sessions.schema.names.index("safety_flags")
    schema = plain_schema(SESSIONS)
    column = pa.array(flags, schema.field("safety_flags").type)
    return sessions.set_column(number, schema.field("safety_flags"), column), count_flags(flags)


def _scanned(scanner: Scanner, background: str | None, messages: Sequence[Message]) -> list[Flag]:
    if not background:
        return scanner.scan(messages)
    found = scanner.scan([{"role": "user", "content": background}, *messages])
    return [flag._replace(utterance=flag.utterance - 1) for flag in found]


def count_flags(flags: Iterable[Sequence[Mapping[str, Any]] | None]) -> dict[str, Any]:
    """Return how many sessions there are, how many are flagged, and how often each flag is."""
    n_sessions = n_flagged = n_unscanned = 0
    spans: Counter[str] = Counter()
    holders: Counter[str] = Counter()
    for found in flags:
        n_sessions += 1
        n_unscanned += found is None
        n_flagged += bool(found)
        names = [flag["flag"] for flag in found or ()]
        spans.update(names)
        holders.update(set(names))
    names = [*FLAGS, *sorted(set(spans) - set(FLAGS))]
    return {
        "sessions": n_sessions,
        "flagged": n_flagged,
        "not_scanned": n_unscanned,
        "flags": {name: {"sessions": holders[name], "spans": spans[name]} for name in names},
    }


def merge_counts(counts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of the counts of several tables."""
    total = count_flags(())
    for part in counts:
        for key in ("sessions", "flagged", "not_scanned"):
            total[key] += part[key]
        for name, numbers in part["flags"].items():
            into = total["flags"].setdefault(name, {"sessions": 0, "spans": 0})
            for key, n in numbers.items():
                into[key] += n
    return total


def _plain(text: str) -> str:
    """Return a text in lowercase with plain apostrophes, every character at its place."""
    low = text.lower()
    if len(low) != len(text):  # some letters become two
        low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return low.replace("\u2019", "'")


def _sentence_start(text: str, position: int, reach: int = _REACH) -> int:
    first = max(0, position - reach)
    ends = [m.end() for m in _SENTENCE_END.finditer(text, first, position)]
    return ends[-1] if ends else first


def _sentence_end(text: str, position: int) -> int:
    last = min(len(text), position + _REACH)
    found = _SENTENCE_END.search(text, position, last)
    return found.start() if found else last
