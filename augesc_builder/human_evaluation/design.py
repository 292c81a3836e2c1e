"""Who rates what: every session by so many different people, all sets spread evenly over all.

The design is found by dealing, which is balanced by itself, and then mixed by exchanges that keep
it so: nothing has to be searched for, and it exists wherever there are as many people as ratings.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

_EXCHANGES = 20
"""Attempts to exchange, for each rating."""


def n_people(n_items: int, ratings: int, per_person: int) -> int:
    """Return how many people are needed: never fewer than the ratings of one item."""
    return max(ratings, math.ceil(n_items * ratings / per_person))


def deal(
    sets: Mapping[str, Sequence[str]], ratings: int, per_person: int, seed: int
) -> list[tuple[str, ...]]:
    """Return the items of each person, in the order in which they are shown.

    Every item is given to ``ratings`` different people. Two people's numbers of items differ by one
    at most, and so do their numbers of items of each set. No two people have the same items in the
    same order, unless there are too few items for that.
    """
    stream = random.Random(f"{seed}/design")
    n = n_people(sum(map(len, sets.values())), ratings, per_person)
    people: list[list[str]] = [[] for _ in range(n)]
    first = 0
    for items in sets.values():
        order = list(items)
        stream.shuffle(order)
        copies = [item for item in order for _ in range(ratings)]
        # Neighbours around a table are different people, as long as there are enough of them.
        seats = [(first + j) % n for j in range(len(copies))]
        first = (first + len(copies)) % n
        _mix(copies, seats, stream)
        for item, person in zip(copies, seats, strict=True):
            people[person].append(item)
    stream.shuffle(people)
    seen: set[tuple[str, ...]] = set()
    orders = []
    for items in people:
        orders.append(new_order(items, seen, stream))
        seen.add(orders[-1])
    return orders


def new_order(
    items: Sequence[str], taken: Container[tuple[str, ...]], stream: random.Random
) -> tuple[str, ...]:
    """Return items in an order that is not taken; any, where all are."""
    order = list(items)
    for _ in range(_EXCHANGES):
        stream.shuffle(order)
        if tuple(order) not in taken:
            return tuple(order)
    return next((found for found in permutations(order) if found not in taken), tuple(order))


def _mix(copies: Sequence[str], seats: list[int], stream: random.Random) -> None:
    """Exchange the people of pairs of copies, wherever nobody gets an item twice."""
    has = set(zip(copies, seats, strict=True))
    for _ in range(_EXCHANGES * len(copies)):
        a, b = stream.randrange(len(copies)), stream.randrange(len(copies))
        exchanged = {(copies[a], seats[b]), (copies[b], seats[a])}
        if has.isdisjoint(exchanged):
            has -= {(copies[a], seats[a]), (copies[b], seats[b])}
            seats[a], seats[b] = seats[b], seats[a]
            has |= exchanged


def draw_checks(
    order: Sequence[str], n_checks: int, n_options: int, stream: random.Random
) -> dict[str, int]:
    """Return the items that also hold an instructed item, with the option that it asks for.

    The first item holds none, where there are others: the form is still new then.
    """
    places = list(order[1:]) if len(order) > n_checks else list(order)
    chosen = set(stream.sample(places, min(n_checks, len(places))))
    return {item: stream.randint(1, n_options) for item in order if item in chosen}


@dataclass(frozen=True)
class Balance:
    """What a design comes to, counted from the design itself.

    Ranges are the least and the most. ``shared`` is the number of items that two people both have;
    ``same_order`` counts people who have the order of somebody else.
    """

    n_people: int
    n_items: int
    per_person: tuple[int, int]
    per_item: tuple[int, int]
    of_set: dict[str, tuple[int, int]]
    shared: tuple[int, int]
    same_order: int
    twice: int
    is_connected: bool


def balance(sets: Mapping[str, Sequence[str]], orders: Sequence[Sequence[str]]) -> Balance:
    """Count what a design comes to."""
    of_item = Counter(item for order in orders for item in order)
    where = {item: name for name, items in sets.items() for item in items}
    of_set = {name: [0] * len(orders) for name in sets}
    for i, order in enumerate(orders):
        for item in order:
            of_set[where[item]][i] += 1
    shared = [len(set(a) & set(b)) for a, b in combinations(orders, 2)] or [0]
    same = Counter(map(tuple, orders))
    return Balance(
        n_people=len(orders),
        n_items=len(where),
        per_person=_range([len(order) for order in orders]),
        per_item=_range([of_item[item] for item in where]),
        of_set={name: _range(counts) for name, counts in of_set.items()},
        shared=_range(shared),
        same_order=sum(n - 1 for n in same.values()),
        twice=sum(len(order) - len(set(order)) for order in orders),
        is_connected=_is_connected(orders),
    )


def describe(found: Balance) -> list[str]:
    """Say what a design comes to, for the person who asks others to take part."""
    lines = [
        f"{found.n_people:,} people rate {found.n_items:,} sessions: {_said(found.per_person)} "
        f"sessions a person, {_said(found.per_item)} people a session",
        *(
            f"  {name}: {_said(counts)} of them for each person"
            for name, counts in found.of_set.items()
        ),
        f"  two people share {_said(found.shared)} sessions",
    ]
    if found.same_order:
        lines.append(
            f"  {found.same_order:,} people have the order of somebody else: there are too few "
            f"sessions a person for as many orders"
        )
    if not found.is_connected:
        lines.append(
            "  some groups of people share no session with the others; more sessions a person "
            "(per_person) would tie them together"
        )
    return lines


def _range(counts: Sequence[int]) -> tuple[int, int]:
    return min(counts), max(counts)


def _said(bounds: tuple[int, int]) -> str:
    low, high = bounds
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _is_connected(orders: Sequence[Sequence[str]]) -> bool:
    """Whether shared items lead from every person to every other."""
    group = {f"person {i}": f"person {i}" for i in range(len(orders))}

    def root(name: str) -> str:
        while group.setdefault(name, name) != name:
            name = group[name]
        return name

    for i, order in enumerate(orders):
        for item in order:
            group[root(f"item {item}")] = root(f"person {i}")
    return len({root(f"person {i}") for i in range(len(orders))}) == 1
