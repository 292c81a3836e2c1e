"""What speakers claim of themselves and theirs, as typed facts that keep their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from augesc_builder.metrics.consistency.clauses import Clause, Word, stem_of
from augesc_builder.metrics.consistency.vocabulary import (
    COUNTED,
    DAYS,
    DISLIKES,
    FEMALE,
    HYPOTHETICAL,
    JOBS,
    KIN_CLASS,
    LIKES,
    MALE,
    PAST,
    VAGUE_VERBS,
)

_FEMALE, _MALE = frozenset(map(stem_of, FEMALE)), frozenset(map(stem_of, MALE))
_JOBS, _COUNTED = frozenset(map(stem_of, JOBS)), frozenset(map(stem_of, COUNTED))
_KIN_CLASS = {stem_of(word): name for word, name in KIN_CLASS.items()}
_DAYS = {stem_of(unit): days for unit, days in DAYS.items()}
_LIKES, _DISLIKES = frozenset(map(stem_of, LIKES)), frozenset(map(stem_of, DISLIKES))
_VAGUE = frozenset(map(stem_of, VAGUE_VERBS))

_OWNERS = frozenset(("my", "our"))
_OLDEST = 120
_NO_LONGER = frozenset(
    ["die", "died", "passed", "lost", "late", "ex", "former", "used", "divorced", "anymore", "another", "other", "future", "step", "yet", "longer", "split", "left", "ago"]
)
"""Words beside which to have none is no contrary of to have had one."""

_SAME_LIFE = frozenset(["been", "have", "has", "had", "am", "is", "are", "was", "were"])
_OBJECT_WORDS = 5
_LEADS_TO_PLACE = frozenset((("live", "in"), ("be", "from"), ("come", "from"), ("bear", "in")))


class Fact(NamedTuple):
    """A claim. Facts of one ``kind`` and ``about`` the same clash where their values do.

    ``said`` is the claim in its own words, ``start`` and ``end`` its span in the utterance.
    """

    kind: str
    about: str
    value: str
    said: str
    start: int
    end: int


def facts_of(clauses: Sequence[Clause]) -> list[Fact]:
    """Return what an utterance claims; questions and what might be claim nothing."""
    return [
        fact
        for clause in clauses
        if not clause.asks and not any(word.text in HYPOTHETICAL for word in clause.words)
        for rule in _RULES
        for fact in rule(clause)
    ]


def _fact(kind: str, about: str, value: str, words: Sequence[Word]) -> Fact:
    said = " ".join(dict.fromkeys(word.text for word in words))
    return Fact(kind, about, value, said, words[0].start, words[-1].end)


def _number(word: Word) -> str | None:
    """Return the number that a word is."""
    return word.stem[1:] if word.stem[0] == "#" and word.stem[1:].isdecimal() else None


def _stems(words: Sequence[Word], start: int, length: int) -> list[str]:
    return [word.stem for word in words[start : start + length]]


def _ages(clause: Clause) -> Iterator[Fact]:
    """Yield ages: ``I am 45``, ``my dog is 14 years old``, ``my 14-year-old dog``."""
    words = clause.words
    for i, word in enumerate(words):
        age = _number(word)
        if age is None or len(age) > len(str(_OLDEST)) or int(age) > _OLDEST:
            continue
        behind = _stems(words, i + 1, 2)
        of_years = behind == ["year", "old"]
        if (
            i >= 2
            and words[i - 1].text in ("am", "is", "turned", "are")
            and (
                not behind or of_years
            )
        ):
            subject = words[i - 2]
            if subject.text == "i":
                yield _fact("age", "i", age, words[i - 2 : i + 1 + 2 * of_years])
            elif i >= 3 and words[i - 3].text in _OWNERS and words[i - 1].text != "are":  # noqa: PLR2004
                yield _fact("age", subject.stem, age, words[i - 3 : i + 1 + 2 * of_years])
        if of_years and i and words[i - 1].text in _OWNERS and words[i + 3 : i + 4]:
            yield _fact("age", words[i + 3].stem, age, words[i - 1 : i + 4])


def _durations(clause: Clause) -> Iterator[Fact]:
    """Yield how long something has been so, or how long ago it was."""
    words = clause.words
    for i in range(1, len(words) - 1):
        number, unit = _number(words[i]), _DAYS.get(words[i + 1].stem)
        if number is None or unit is None or len(number) > 4:  # noqa: PLR2004
            continue
        ago = _stems(words, i + 2, 1) == ["ago"]
        if not ago and words[i - 1].text != "for":
            continue
        before = words[:i] if ago else words[: i - 1]
        subject = next((w.text for w in before if w.text in ("i", "we", "he", "she", "it")), None)
        verb = next((w for w in reversed(before) if w.stem in clause.content), None)
        if verb is None or (subject is None and not any(w.text in _OWNERS for w in before)):
            continue
        if ago or any(w.text in ("been", "have", "has") for w in before):
            about = f"{subject or 'my'} {verb.stem} {'ago' if ago else 'for'}"
            days = f"{int(number) * unit:.2f}"
            yield _fact("duration", about, days, words[verb_place(words, verb) : i + 2 + ago])


def verb_place(words: Sequence[Word], verb: Word) -> int:
    """Return where a word stands among others."""
    return words.index(verb)


def _counts(clause: Clause) -> Iterator[Fact]:
    """Yield how many of what can be counted once for all one has."""
    words = clause.words
    for i, word in enumerate(words):
        if word.stem in _COUNTED and i >= 2:  # noqa: PLR2004
            for back in (1, 2):
                number = _number(words[i - back])
                owner = words[i - back - 1] if i > back else None
                if number is None or owner is None:
                    continue
                if owner.text in _OWNERS or owner.text in ("have", "got"):
                    if not any(w.text in _NO_LONGER for w in words):
                        yield _fact("count", word.stem, number, words[i - back - 1 : i + 1])
                    break


def _kin(clause: Clause) -> Iterator[Fact]:
    """Yield whom one has and whom one has none of."""
    words = clause.words
    if any(word.text in _NO_LONGER for word in words):
        return
    for i, word in enumerate(words):
        kin = _KIN_CLASS.get(word.stem)
        if word.text == "married" and clause.negators and any(w.text == "i" for w in words[:i]):
            yield _fact("kinship", "spouse", "none", words)
        if _stems(words, i, 2) == ["only", "child"] and "i" in [w.text for w in words[:i]]:
            yield _fact("kinship", "siblings", "none", words[i : i + 2])
        elif kin is None or not i:
            continue
        elif words[i - 1].text in _OWNERS:
            yield _fact("kinship", kin, "some", words[i - 1 : i + 1])
        elif "i" in [w.text for w in words[:i]] and "have" in _stems(words, max(i - 4, 0), 4):
            none = any(word.text in ("no", "not", "never") for word in words[max(i - 5, 0) : i])
            yield _fact("kinship", kin, "none" if none else "some", words[max(i - 4, 0) : i + 1])


def _selves(clause: Clause) -> Iterator[Fact]:
    """Yield a speaker's name, gender and work, and where they live."""
    words = clause.words
    texts = [word.text for word in words]
    for i, word in enumerate(words):
        if word.text == "name" and i and texts[i - 1] in _OWNERS and texts[i + 1 : i + 2] == ["is"]:
            if words[i + 2 : i + 3] and not clause.negators:
                yield _fact("name", "i", words[i + 2].stem, words[i - 1 : i + 3])
        if texts[i : i + 2] == ["i", "am"] and not clause.negators:
            article = next((k for k in (i + 2, i + 3) if texts[k : k + 1] in (["a"], ["an"])), None)
            if article is None or "like" in texts[i:article]:
                continue
            for k in range(article + 1, min(article + 4, len(words))):
                stem = words[k].stem
                if stem in _FEMALE or stem in _MALE:
                    value = "female" if stem in _FEMALE else "male"
                    yield _fact("gender", "i", value, words[i : k + 1])
                    break
                last = k + 1 == len(words) or words[k + 1].text in ("and", "at", "in", "for", "who")
                if stem in _JOBS and last:
                    yield _fact("work", "i", stem, words[i : k + 1])
                    break
        if texts[i : i + 1] == ["i"] and tuple(_stems(words, i + 1, 2)) in _LEADS_TO_PLACE:
            place = words[i + 3 : i + 5]
            if place and place[0].text not in ("a", "an", "the", "my", "this", "that", "one"):
                value = place[0].stem
                yield _fact("place", words[i + 1].stem, value, words[i : i + 4])


def _deeds(clause: Clause) -> Iterator[Fact]:
    """Yield what one does or does not do, likes or does not like: ``I VERB OBJECT``."""
    words = [word for word in clause.words if word.stem not in ("really", "actually", "also")]
    start = next((i for i, word in enumerate(words) if word.text == "i"), None)
    if start is None:
        return
    denied, i = False, start + 1
    tense = "now"
    while i < len(words) and (
        words[i].text in _SAME_LIFE or words[i] in clause.negators or words[i].text in ("do", "did")
    ):
        denied ^= words[i] in clause.negators
        tense = "past" if words[i].text in ("did", "had", "was", "were") else tense
        i += 1
    if i >= len(words) or words[i].stem in _VAGUE or words[i].text.endswith("ing"):
        return
    verb = words[i]
    if verb.text in PAST or verb.text.endswith("ed"):
        tense = "past"
    objects = [w for w in words[i + 1 : i + 1 + _OBJECT_WORDS] if w.stem in clause.content]
    if not objects or any(w in clause.negators for w in words[i + 1 :]):
        return
    name = verb.stem
    if name in _DISLIKES:
        name, denied = "like", not denied
    elif name in _LIKES:
        name = "like"
    about = f"{name} {tense} {' '.join(sorted({w.stem for w in objects}))}"
    yield _fact(
        "deed", about, "no" if denied else "yes", words[start : words.index(objects[-1]) + 1]
    )


_RULES = (_ages, _durations, _counts, _kin, _selves, _deeds)
