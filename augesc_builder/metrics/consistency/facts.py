"""What speakers claim of themselves and theirs, as typed facts that keep their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
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
    TIMES,
    VAGUE_VERBS,
    word_set,
)

_FEMALE, _MALE = frozenset(map(stem_of, FEMALE)), frozenset(map(stem_of, MALE))
_JOBS, _COUNTED = frozenset(map(stem_of, JOBS)), frozenset(map(stem_of, COUNTED))
_KIN_CLASS = {stem_of(word): name for word, name in KIN_CLASS.items()}
_DAYS = {stem_of(unit): days for unit, days in DAYS.items()}
_LIKES, _DISLIKES = frozenset(map(stem_of, LIKES)), frozenset(map(stem_of, DISLIKES))
_VAGUE = frozenset(map(stem_of, VAGUE_VERBS))

_OWNERS = frozenset(("my", "our"))
_OLDEST = 120
_NO_LONGER = word_set(
    "die died passed lost late ex former used divorced anymore another other future step yet "
    "longer split left ago"
)
"""Words beside which to have none is no contrary of to have had one."""

_FARTHEST_OWNED = 4
_MORTAL = frozenset(map(stem_of, FEMALE | MALE | {"dog", "cat"}))
_DIED = word_set("died passed dead deceased")
_DOES = word_set("says tells thinks calls lives comes works likes loves wants asks knows keeps")
_STATES = word_set("married pregnant single employed unemployed divorced vegetarian vegan retired")
_AUXILIARIES = word_set("been have has had am is are was were do does did can")
_SUBJECTS = word_set("i he she we they")
_OBJECT_WORDS = 5
_GREETINGS = word_set(
    "hi hello hey thank thanks you well yes no ok okay oh sure bye dear good morning"
)
_LONGEST_GREETING = 4
_TIMES = frozenset(map(stem_of, TIMES))
_BEHIND_JOBS = word_set("and at in for who")
_NO_PLACE = word_set("a an the my our this that one it here there same")
_LEADS_TO_PLACE = frozenset(
    (stem_of(verb), where) for verb, where in (("live", "in"), ("be", "from"), ("come", "from"))
)
_HAVE = stem_of("have")
_ARTICLES = frozenset(("a", "an", "any", "the"))


class Fact(NamedTuple):
    """A claim. Facts of one ``kind`` and ``about`` the same clash where their values do.

    ``said`` is the claim in its own words, ``start`` and ``end`` its span in the utterance.
    """

    kind: str
    about: tuple[str, ...]
    value: str
    said: str
    start: int
    end: int


def facts_of(clauses: Sequence[Clause]) -> list[Fact]:
    """Return what an utterance claims; questions and what might be claim nothing."""
    claims = [
        fact
        for clause in clauses
        if not clause.asks and not any(word.text in HYPOTHETICAL for word in clause.words)
        for rule in _RULES
        for fact in rule(clause)
    ]
    return claims + list(_addressed(clauses))


def _addressed(clauses: Sequence[Clause]) -> Iterator[Fact]:
    """Yield what a speaker calls the other: ``hi Randy``, ``Thank you, David``."""
    greeted: Sequence[Word] = ()
    for clause in clauses:
        words = clause.words
        if len(words) <= _LONGEST_GREETING and all(w.text in _GREETINGS for w in words[:-1]):
            last = words[-1]
            is_name = last.capital and last.text not in _GREETINGS and last.stem not in _TIMES
            if is_name and (words[:-1] or greeted):
                yield _fact("name", "you", last.stem, words)
        greeted = words if all(w.text in _GREETINGS for w in words) else ()


def _fact(kind: str, about: str | tuple[str, ...], value: str, words: Sequence[Word]) -> Fact:
    said = " ".join(word.text for word in words)
    key = (about,) if isinstance(about, str) else about
    return Fact(kind, key, value, said, words[0].start, words[-1].end)


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
        if age is None or len(age) > len(str(_OLDEST)) or int(age) > _OLDEST or not i:
            continue
        behind = _stems(words, i + 1, 2)
        of_years = behind == ["year", "old"]
        end = i + 3 if of_years else i + 1
        if words[i - 1].text in ("am", "is", "turned") and (not behind or of_years):
            if i > 1 and words[i - 2].text == "i":
                yield _fact("age", "i", age, words[i - 2 : end])
            elif i > 1 and words[max(i - 3, 0)].text in _OWNERS:
                yield _fact("age", words[i - 2].stem, age, words[i - 3 : end])
        elif of_years and words[i - 1].text in _OWNERS and len(words) > end:
            yield _fact("age", words[end].stem, age, words[i - 1 : end + 1])


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
            yield _fact("duration", about, days, words[words.index(verb) : i + 2 + ago])


def _counts(clause: Clause) -> Iterator[Fact]:
    """Yield how many of what can be counted once for all one has."""
    words = clause.words
    if any(word.text in _NO_LONGER for word in words):
        return
    for i in range(1, len(words)):
        number = _number(words[i])
        if number is None or words[i - 1].text not in ("my", "our", "have", "got"):
            continue
        for k in range(i + 1, min(i + 3, len(words))):
            if words[k].stem in _COUNTED:
                yield _fact("count", words[k].stem, number, words[i - 1 : k + 1])
                break


def _kin(clause: Clause) -> Iterator[Fact]:
    """Yield whom one has and whom one has none of."""
    words, texts = clause.words, [word.text for word in clause.words]
    if not _NO_LONGER.isdisjoint(texts):
        return
    speaker = texts.index("i") if "i" in texts else len(texts)
    for k, word in enumerate(words):
        kin = _KIN_CLASS.get(word.stem)
        if kin and k and texts[k - 1] in _OWNERS:
            yield _fact("kinship", kin, "some", words[k - 1 : k + 1])
            if kin == "spouse" and word.text != "spouse":
                yield _fact("kinship", "whom one is married to", word.stem, words[k - 1 : k + 1])
        elif k < speaker:
            continue
        elif word.text == "married" and clause.negators:
            yield _fact("kinship", "spouse", "none", words[speaker : k + 1])
        elif _stems(words, k, 2) == ["only", "child"]:
            yield _fact("kinship", "siblings", "none", words[speaker : k + 2])
        elif kin and (none := _lacks(clause, speaker, k)) is not None:
            yield _fact("kinship", kin, "none" if none else "some", words[speaker : k + 1])


def _lacks(clause: Clause, speaker: int, kin: int) -> bool | None:
    """Whether it is said to have none of somebody; ``None`` where nothing of the kind is said."""
    words = clause.words
    verb = speaker + 1
    while verb < kin and (words[verb].text in ("do", "did") or words[verb] in clause.negators):
        verb += 1
    if words[verb].stem != _HAVE or kin - verb > _FARTHEST_OWNED:
        return None
    return any(word in clause.negators for word in words[speaker:kin])


def _lives(clause: Clause) -> Iterator[Fact]:
    """Yield who has died, and who does what the living do."""
    words, texts = clause.words, [word.text for word in clause.words]
    for k in range(1, len(words) - 1):
        owned = texts[k - 1] in _OWNERS and not texts[k].endswith("'s")
        if owned and words[k].stem in _MORTAL:
            if not _DIED.isdisjoint(texts[k + 1 : k + 4]) and not clause.negators:
                yield _fact("life", words[k].stem, "dead", words[k - 1 : k + 4])
            elif texts[k + 1] in _DOES and not clause.negators:
                yield _fact("life", words[k].stem, "alive", words[k - 1 : k + 2])


def _names(clause: Clause) -> Iterator[Fact]:
    """Yield what a speaker is called."""
    words = clause.words
    for i in range(len(words) - 3):
        if [word.text for word in words[i : i + 3]] == ["my", "name", "is"] and not clause.negators:
            yield _fact("name", "i", words[i + 3].stem, words[i : i + 4])


def _selves(clause: Clause) -> Iterator[Fact]:
    """Yield a speaker's gender and work: ``I am a good man``."""
    words, texts = clause.words, [word.text for word in clause.words]
    for i in range(len(words)):
        if texts[i : i + 2] != ["i", "am"] or clause.negators:
            continue
        article = next((k for k in (i + 2, i + 3) if texts[k : k + 1] in (["a"], ["an"])), None)
        if article is None or "like" in texts[i:article]:
            continue
        for k in range(article + 1, min(article + 4, len(words))):
            stem = words[k].stem
            if stem in _FEMALE or stem in _MALE:
                value = "female" if stem in _FEMALE else "male"
                yield _fact("gender", "i", value, words[i : k + 1])
                break
            if stem in _JOBS and (k + 1 == len(words) or texts[k + 1] in _BEHIND_JOBS):
                yield _fact("work", "i", stem, words[i : k + 1])
                break


def _places(clause: Clause) -> Iterator[Fact]:
    """Yield where a speaker lives or is from."""
    words = clause.words
    for i in range(len(words) - 3):
        leads = words[i].text == "i" and tuple(_stems(words, i + 1, 2)) in _LEADS_TO_PLACE
        if leads and words[i + 3].text not in _NO_PLACE and not clause.negators:
            yield _fact("place", words[i + 1].stem, words[i + 3].stem, words[i : i + 4])


def _deeds(clause: Clause) -> Iterator[Fact]:
    """Yield what one does or does not do, is or likes: ``I VERB OBJECT``, ``I have a OBJECT``."""
    words = [word for word in clause.words if word.text not in ("really", "actually", "also")]
    subjects = [i for i, word in enumerate(words) if word.text in _SUBJECTS]
    for start, end in pairwise([*subjects, len(words)]):
        if fact := _deed(words[start:end], clause):
            yield fact


def _deed(words: Sequence[Word], clause: Clause) -> Fact | None:
    """Return what the first of the words does, if it does something to something."""
    denied, past, i = False, False, 1
    while i < len(words) and (words[i].text in _AUXILIARIES or words[i] in clause.negators):
        denied ^= words[i] in clause.negators
        past |= words[i].text in PAST
        i += 1
    if i >= len(words):
        return None
    verb, behind = words[i], words[i + 1 : i + 1 + _OBJECT_WORDS]
    if verb.text in _ARTICLES:  # no auxiliary stands before it: one has something, or is something
        verb = next((word for word in reversed(words[:i]) if word not in clause.negators), verb)
    objects = [word for word in behind if word.stem in clause.content]
    if not objects and verb.text in _STATES:
        objects = [verb]
    vague = verb.stem in _VAGUE or verb.text.endswith("ing")
    if vague or not objects or any(word in clause.negators for word in words[i + 1 :]):
        return None
    past |= verb.text in PAST or verb.text.endswith("ed")
    likes = verb.stem in _LIKES or verb.stem in _DISLIKES
    denied ^= verb.stem in _DISLIKES
    about = (
        words[0].text,
        "like" if likes else verb.stem,
        "past" if past else "now",
        *sorted({word.stem for word in objects}),
    )
    value = "no" if denied else "yes"
    return _fact("deed", about, value, words[: words.index(objects[-1]) + 1])


_RULES = (_ages, _durations, _counts, _kin, _lives, _names, _selves, _places, _deeds)
