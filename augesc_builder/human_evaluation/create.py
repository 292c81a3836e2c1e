"""Making a study: sessions are drawn, dealt to people, and written down once and for all."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import random
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

from augesc_builder.errors import InputError, MissingExtraError, RunFolderError, StudyError
from augesc_builder.human_evaluation import design
from augesc_builder.human_evaluation.events import EventLog
from augesc_builder.human_evaluation.form import Form, load_form
from augesc_builder.human_evaluation.power import pairwise_power, quality_power
from augesc_builder.human_evaluation.settings import Interactive, StudySettings
from augesc_builder.human_evaluation.study import KIND, Corpus, Item, Place, Study, item_line
from augesc_builder.human_evaluation.tokens import Tokens, write_tokens
from augesc_builder.readers.records import BadLines
from augesc_builder.run import layout
from augesc_builder.run.disk import new_folder, sealed, sha256
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest
from augesc_builder.run.versions import versions
from augesc_builder.sources.base import Session
from augesc_builder.sources.registry import find_source, source_label
from augesc_builder.sources.sessions import parse_sessions, session_chunks, sessions_files


def create(
    settings: StudySettings, corpora: Mapping[str, str], out: Path, progress: Progress
) -> Study:
    """Create a study in a new folder, whole or not at all, and say what it comes to.

    ``corpora`` has the place of each set by its name: a folder of a corpus or a run, a file of
    sessions, or a source such as ``esconv``. An interactive study has none.

    Raises :class:`~augesc_builder.errors.StudyError` for settings that no study can have,
    :class:`~augesc_builder.errors.InputError` for corpora that cannot be read or hold too few
    sessions, and :class:`~augesc_builder.errors.RunFolderError` where the folder is in use.
    """
    _check_folder(out)
    form = load_form(settings.form)
    _check_form(form, settings)
    if settings.interactive is not None:
        if corpora:
            raise StudyError("an interactive study has systems and no corpora; leave them out")
        drawn: list[Corpus] = []
        items, places = _pairs(settings.interactive, settings.seed)
        said = _said_of_pairs(settings.interactive)
    else:
        drawn, items = _sample(settings, corpora, progress)
        sets = {name: [item.id for item in items if item.set == name] for name in corpora}
        places, said = _deal(settings, form, sets)
    tokens = Tokens.draw(len(places) if settings.links is None else settings.links)
    _write(out, settings, form, items, places, drawn, tokens)
    for line in [*said, *_power(settings, form)]:
        progress.say(line)
    progress.say(
        f"{out} is ready, with {len(tokens.links):,} personal links; next: "
        f"augesc study serve {shlex.quote(str(out))} --links links.csv"
    )
    return Study.open(out)


def _power(settings: StudySettings, form: Form) -> list[str]:
    """Say what the study can show; of labels by turn nothing is promised."""
    try:
        if settings.interactive is not None:
            n_kinds = math.comb(len(settings.interactive.systems), 2)
            return [pairwise_power(settings.interactive.pairs // n_kinds)]
        if form.about == "session":
            return [quality_power(settings.sessions, settings.ratings)]
    except MissingExtraError as error:
        return [f"What it can show is not computed: {error}"]
    return []


def given_corpora(given: Sequence[str]) -> dict[str, str]:
    """Name the corpora of ``PLACE`` and ``NAME=PLACE``; a source is called by its label.

    Raises :class:`~augesc_builder.errors.StudyError` for two of one name.
    """
    from augesc_builder.pipeline.statistics.sets import name_and_path

    found: dict[str, str] = {}
    for text in given:
        name, path = name_and_path(text)
        where = str(path)
        if name is None:
            is_source = find_source(where) is not None
            name = source_label(where) if is_source else path.stem or path.resolve().name
        if name in found:
            raise StudyError(f"a second corpus called {name}; name it, as in other={where}")
        found[name] = where
    return found


def given_systems(given: Sequence[str]) -> list[str]:
    """Return the overrides that name systems given as ``NAME=DIR`` or ``NAME=URL#MODEL``.

    Raises :class:`~augesc_builder.errors.StudyError` for what is no such pair.
    """
    overrides = []
    for text in given:
        name, equals, where = text.partition("=")
        address, _, model = where.partition("#")
        is_endpoint = "://" in where
        if not equals or not name or not where or "." in name or (is_endpoint and not model):
            raise StudyError(
                f"--system {text[:80]}: expected NAME=DIR, or NAME=URL#MODEL for an endpoint, the "
                f"name without a dot"
            )
        if is_endpoint:
            overrides.append(f"interactive.systems.{name}.base_url={json.dumps(address)}")
            overrides.append(f"interactive.systems.{name}.model={json.dumps(model)}")
            continue
        overrides.append(f"interactive.systems.{name}.folder={json.dumps(where)}")
    return overrides


# -- the sample ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Drawn:
    """A session under the number by which it was drawn; those with the least are the sample."""

    rank: int
    session: Session

    def __lt__(self, other: _Drawn) -> bool:
        return self.rank > other.rank


def draw(sessions: Iterator[Session], n: int, name: str, seed: int) -> tuple[list[Session], int]:
    """Draw ``n`` sessions of different texts, and count all that there are.

    Which are drawn depends on the seed, the set's name and the texts: not on their order, and of
    a text that stands twice one copy is meant. Memory holds the sample alone.
    """
    sample: list[_Drawn] = []
    ranks: set[int] = set()
    count = 0
    for session in sessions:
        count += 1
        rank = _rank(session, name, seed)
        if rank in ranks or (len(sample) == n and rank > sample[0].rank):
            continue
        ranks.add(rank)
        if len(sample) < n:
            heapq.heappush(sample, _Drawn(rank, session))
        else:
            ranks.discard(heapq.heapreplace(sample, _Drawn(rank, session)).rank)
    return [found.session for found in sorted(sample, reverse=True)], count


def _rank(session: Session, name: str, seed: int) -> int:
    text = json.dumps([seed, name, list(session.messages)], ensure_ascii=False, sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def _sample(
    settings: StudySettings, corpora: Mapping[str, str], progress: Progress
) -> tuple[list[Corpus], list[Item]]:
    if not corpora:
        raise StudyError("no corpus to draw sessions from; give one or more, as NAME=PATH")
    drawn, found = [], []
    for name, where in corpora.items():
        files, bad = _files(where), BadLines()
        sessions = (s for chunk in session_chunks(files) for s in parse_sessions(chunk, bad))
        sample, count = draw(sessions, settings.sessions, name, settings.seed)
        bad.say(progress.say)
        if len(sample) < settings.sessions:
            raise InputError(
                f"{name} holds {len(sample):,} different sessions, and the study asks for "
                f"{settings.sessions:,}; lower sessions, or give a larger corpus",
                where,
            )
        resolved = tuple(str(path.resolve()) for path in files)
        drawn.append(Corpus(name, where, resolved, digest(files), count))
        found += [(name, session) for session in sample]
    # Numbers in an order that tells nothing of the sets.
    random.Random(f"{settings.seed}/items").shuffle(found)
    width = max(3, len(str(len(found))))
    items = [
        Item(f"s{i:0{width}d}", name, session.session_id, session.messages)
        for i, (name, session) in enumerate(found, 1)
    ]
    return drawn, items


def _files(where: str) -> list[Path]:
    source = find_source(where)
    if source is None:
        return sessions_files(Path(where))
    if source.session_files is None:
        raise InputError("a source of posts, not of sessions; give a corpus", where)
    return source.session_files(source.revision)


# -- the design ------------------------------------------------------------------------------------


def _deal(
    settings: StudySettings, form: Form, sets: Mapping[str, Sequence[str]]
) -> tuple[list[Place], list[str]]:
    orders = design.deal(sets, settings.ratings, settings.per_person, settings.seed)
    found = design.balance(sets, orders)
    if found.per_item != (settings.ratings, settings.ratings) or found.twice:
        raise AssertionError(f"the design is not balanced: {found}")  # a mistake of ours
    stream = random.Random(f"{settings.seed}/checks")
    n_options = len(form.questions[0].options)
    places = [
        Place(i, order, design.draw_checks(order, settings.attention_checks, n_options, stream))
        for i, order in enumerate(orders)
    ]
    return places, design.describe(found)


def _pairs(settings: Interactive, seed: int) -> tuple[list[Item], list[Place]]:
    """Return an item and a place for each pair of conversations; sides are drawn, and balanced."""
    stream = random.Random(f"{seed}/pairs")
    kinds = list(combinations(settings.systems, 2))
    pairs = []
    for i in range(settings.pairs):
        systems = kinds[i % len(kinds)]
        pairs.append((systems, systems[i // len(kinds) % 2]))
    stream.shuffle(pairs)
    width = max(3, len(str(len(pairs))))
    items = [
        Item(f"p{i:0{width}d}", systems=systems, left=left)
        for i, (systems, left) in enumerate(pairs, 1)
    ]
    return items, [Place(i, (item.id,), {}) for i, item in enumerate(items)]


def _said_of_pairs(settings: Interactive) -> list[str]:
    names = list(settings.systems)
    n_kinds = len(list(combinations(names, 2)))
    least, more = divmod(settings.pairs, n_kinds)
    each = f"{least:,}" if not more else f"{least:,} to {least + 1:,}"
    return [
        f"{settings.pairs:,} people talk with two of {len(names)} systems: {', '.join(names)}",
        f"  {each} pairs for each two of them, left and right equally often",
    ]


# -- the folder ------------------------------------------------------------------------------------


def _check_form(form: Form, settings: StudySettings) -> None:
    if (form.about == "pair") != (settings.kind == "interactive"):
        kind = "interactive" if form.about == "pair" else "quality"
        raise StudyError(
            f"the form {form.name} asks about a {form.about}, which is for a study of kind "
            f"{kind}; this one is {settings.kind}"
        )


def _check_folder(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if (out / layout.STUDY).exists():
        raise RunFolderError(f"{out}: a study is there already; give another --out")
    if out.exists():
        raise RunFolderError(f"{out} holds something else; give --out a new or empty folder")


def _write(
    out: Path,
    settings: StudySettings,
    form: Form,
    items: Sequence[Item],
    places: Sequence[Place],
    corpora: Sequence[Corpus],
    tokens: Tokens,
) -> None:
    """Write a study's folder, for its owner alone."""
    with new_folder(out) as work:
        path = work / layout.ITEMS
        path.write_text("".join(map(item_line, items)), encoding="utf-8")
        write_tokens(work, tokens)
        EventLog.create(work / layout.EVENTS)
        manifest = {
            "kind": KIND,
            "versions": versions(),
            "settings": settings.model_dump(mode="json"),
            "form": form.model_dump(mode="json"),
            "items": sha256(path),
            "corpora": [asdict(corpus) for corpus in corpora],
            "places": [
                {"items": list(place.items), "checks": dict(place.checks)} for place in places
            ],
        }
        (work / layout.STUDY).write_text(sealed(manifest), encoding="utf-8")
