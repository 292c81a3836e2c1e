"""Who makes the shards of a stage: this machine, a Ray cluster, or elements of a Slurm array.

The unit of work is a shard: some hundred rows that depend on nothing but their queries, the seed
and the settings. A stage hands over a *job* (:class:`~.base.Job`): what it is called, how many
shards it has, and how a *worker* for it is made in whatever process. A worker takes the numbers of
shards as it has room for them, one after the other, so that the slots of its engine stay full
across them; it writes each into the store, and gives its number when its mark is there. An
*executor* finds processes for workers, and numbers for them::

    numbers of shards ──► executor ──► workers, each with a model of its own ──► files and marks
                              ▲                                                       │
                              └──────────────── numbers of finished shards ───────────┘

What follows from that:

- Rows go from the worker to the store, and never through the process that began the run.
- The marks are the only truth. An executor holds nothing that they do not say, so it may be killed
  at any time and begun anew, with another type too; any number of them may be at one folder.
- No number is kept in a list: which shards are missing is asked of the marks, as they are needed.
  The memory of an executor is the same for a hundred shards and a hundred thousand.
- A shard may be made twice, where a worker is taken for dead, or several come to the end of the
  work; it is written once (:mod:`augesc_builder.run.shards`). So nobody leases, watches a clock or
  asks a coordinator.
- The first worker of a job chooses what all must share (type of the weights, slots, threads), as
  only one can, and the others do as it chose: a row is the same to the last bit on machines of one
  kind.

The types: :mod:`.local` is one worker that uses all of this machine. :mod:`.slurm` is an element of
an array: it takes every n-th shard by its rank, and then what is left, from a place drawn by its
rank. :mod:`.ray` keeps as many actors as the cluster has GPUs, or cores, and gives each a number or
two more than it has room for; what dies is restarted by Ray. Stages do not know which they have.
"""

from augesc_builder.executors.base import Executor, Job, Worker
from augesc_builder.executors.choice import executor_of

__all__ = ["Executor", "Job", "Worker", "executor_of"]
