"""What is generated, in which order, and where it ends.

Without ``generate.keep``, that is every sample of every query (:mod:`.order`). With it, candidates
have one fixed order, and generation ends at the one that makes the sessions as many as were asked
for: the table holds all candidates up to that one and no other, so that its rows, and with them
what is kept and Table 1's shares, are the same whatever the shards, the processes and the kills on
the way. What was under way beyond it is dropped.

Candidates stand in the order of the queries, first the first sample of each, then the second of
each, and so on. Where the best of several samples of a query are chosen (``select.per_query``), all
samples of a query come together instead, as they do without ``generate.keep``, and a query counts
for as many as will be chosen of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import count, islice

from augesc_builder.config.generate import Quota
from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import BudgetError, RecipeError
from augesc_builder.pipeline.generate.tasks import Row, Task
from augesc_builder.run.storage import Storage

STAGE = "generate"

_TOLD = 3
"""Requirements that are named where the candidates do not do."""


class Lane:
    """Candidates in their order, cut into shards, and how many of them are kept so far.

    Lane ``number`` of ``n_lanes`` has every ``n_lanes``-th shard of the table: how many each will
    have is known at the end only. ``per_query`` is how many of a query's candidates are counted at
    most, the last of them as the query ends; ``None``: each counts by itself. ``mended_by`` says
    what helps where they are not enough.
    """

    def __init__(
        self,
        candidates: Iterable[tuple[Row, int]],
        size: int,
        *,
        quota: Quota,
        number: int = 0,
        n_lanes: int = 1,
        per_query: int | None = None,
        mended_by: str = "",
    ) -> None:
        self.size, self.quota, self.mended_by = size, quota, mended_by
        self._number, self._n_lanes, self._per_query = number, n_lanes, per_query
        self.tasks = [
            Task(query, sample, number + n_lanes * (i // size), i % size)
            for i, (query, sample) in enumerate(candidates)
        ]
        self.end: int | None = None
        """How many candidates there are up to the last one that was needed, once that is known."""
        self.n_kept = 0
        """How many are kept of those that are known without a gap."""
        self._failed: dict[int, Sequence[str]] = {}
        self._at = self._met = 0

    @cached_property
    def shards(self) -> dict[int, int]:
        """Return how many rows each shard has, by its number."""
        return {
            self._number + self._n_lanes * (first // self.size): min(
                self.size, len(self.tasks) - first
            )
            for first in range(0, len(self.tasks), self.size)
        }

    def note(self, task: Task, failed: Sequence[str]) -> int:
        """Note which requirements a candidate fails; return how many more are kept by that."""
        self._failed[self._place(task.shard) + task.row] = failed
        before = self.n_kept
        self._count()
        return self.n_kept - before

    @property
    def written(self) -> list[int]:
        """Return the shards that the table has."""
        return [number for number in self.shards if self.needed(number)]

    def needed(self, shard: int) -> int:
        """Return how many rows of a shard the table needs, now that the end is known."""
        rows = self.shards[shard]
        return rows if self.end is None else min(rows, max(0, self.end - self._place(shard)))

    def failed(self, shard: int, n_rows: int) -> list[list[str]]:
        """Return what the first rows of a shard failed."""
        first = self._place(shard)
        return [list(self._failed[first + row]) for row in range(n_rows)]

    def resume(self, folder: Storage) -> list[int]:
        """Take up what was written before; return the shards that are missing.

        A shard that an earlier and lower number to keep, or a smaller budget, cut short is made
        again where more is needed.
        """
        missing = []
        for number, rows in self.shards.items():
            if not folder.has_shard(STAGE, number):
                missing.append(number)
                continue
            found = folder.shard_fact(STAGE, number)["violations"]
            first = self._place(number)
            for task, failed in zip(self.tasks[first:], found, strict=False):
                self.note(task, failed)
            if len(found) < rows and self.end is None:
                self._forget(folder, number)
                missing.append(number)
        return missing if self.end is None else []

    def spent(self) -> BudgetError:
        """Return the error that says why all candidates were not enough, and what mends it."""
        reasons = Counter(name for failed in self._failed.values() for name in failed)
        told = ", ".join(
            f"{name} ({n / len(self.tasks):.0%})" for name, n in reasons.most_common(_TOLD)
        )
        keep, of = self.quota.keep, _of(self.quota)
        return BudgetError(
            f"generate.keep: {self.n_kept:,} of {keep:,} sessions{of} are kept of all "
            f"{len(self.tasks):,} candidates; what most of them failed: {told or 'nothing'}. "
            f"Nothing of it is lost: {self.mended_by}, or lower generate.keep, and run the same "
            f"command again to go on"
        )

    def _count(self) -> None:
        """Count the candidates that are known without a gap."""
        while self.end is None and self._at in self._failed:
            self._met += not self._failed[self._at]
            self._at += 1
            if self._closes(self._at):
                self.n_kept += min(self._met, self._per_query or 1)
                self._met = 0
                if self.n_kept >= self.quota.keep:
                    self.end = self._at

    def _closes(self, at: int) -> bool:
        """Whether the candidate before place ``at`` is the last that is counted together."""
        if self._per_query is None or at == len(self.tasks):
            return True
        before, after = self.tasks[at - 1].query, self.tasks[at].query
        return bool(before["query_id"] != after["query_id"])

    def _place(self, shard: int) -> int:
        """Return the place of a shard's first candidate."""
        return shard // self._n_lanes * self.size

    def _forget(self, folder: Storage, number: int) -> None:
        """Remove a shard, and count anew without it."""
        first = self._place(number)
        for row in range(self.shards[number]):
            self._failed.pop(first + row, None)
        self.n_kept = self._met = self._at = 0
        self._count()
        folder.forget_shard(STAGE, number)


def lanes_of(queries: Sequence[Row], recipe: Recipe) -> list[Lane]:
    """Return what is generated for queries until enough is kept, one lane after the other.

    Raises :class:`~augesc_builder.errors.RecipeError` where ``generate.keep`` names a source that
    has no query, and where more is to be kept than all queries could give.
    """
    settings = recipe.generate
    quotas = settings.quotas()
    per_query = None if recipe.select is None else recipe.select.per_query
    lanes = []
    for number, quota in enumerate(quotas):
        some = [q for q in queries if quota.source in {None, q["source"]}]
        if not some:
            there = ", ".join(sorted({q["source"] for q in queries}))
            raise RecipeError(
                f"generate.keep: {quota.source} has no query; the queries are from {there}"
            )
        mended_by = f"raise generate.keep_budget (now {quota.budget:,})"
        if per_query is None:
            rounds = ((query, sample) for sample in count() for query in some)
            candidates = list(islice(rounds, quota.budget))
        else:
            if (most := per_query * len(some)) < quota.keep:
                raise RecipeError(
                    f"generate.keep: {quota.keep:,} sessions{_of(quota)} are more than "
                    f"select.per_query {per_query} of {len(some):,} queries can give; collect "
                    f"more queries (queries.max_per_source), or keep at most {most:,}"
                )
            candidates = _by_query(some, recipe)
            if len(candidates) <= quota.budget:
                mended_by = "take more queries in a new folder (queries.max_per_source)"
            candidates = _whole_queries(candidates, quota.budget)
        lanes.append(
            Lane(
                candidates,
                settings.shard_size,
                number=number,
                n_lanes=len(quotas),
                quota=quota,
                per_query=per_query,
                mended_by=mended_by,
            )
        )
    return lanes


def _by_query(queries: Sequence[Row], recipe: Recipe) -> list[tuple[Row, int]]:
    """Return every sample of every query, those of a query together."""
    return [
        (query, sample)
        for query in queries
        for sample in range(recipe.generate.samples_for(query["source"]))
    ]


def _whole_queries(candidates: Sequence[tuple[Row, int]], most: int) -> list[tuple[Row, int]]:
    """Return the candidates of the first queries, as many as fit in a budget."""
    starts = [i for i, (_, sample) in enumerate(candidates) if sample == 0]
    ends = [*starts[1:], len(candidates)]
    return list(candidates[: max((end for end in ends if end <= most), default=0)])


def _of(quota: Quota) -> str:
    return f" of {quota.source}" if quota.source else ""
