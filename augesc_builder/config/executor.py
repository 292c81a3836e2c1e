"""Section ``executor`` of a recipe: who makes the shards. No row depends on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from augesc_builder.config.base import Section
from augesc_builder.config.generate import Generate


class Executor(Section):
    """Where the work is done: on this machine, a Ray cluster, or by elements of a Slurm array."""

    type: Literal["local", "ray", "slurm"]
    address: Annotated[str, Field(min_length=1, max_length=300)] = "auto"
    """Of the Ray cluster."""

    def check(self, generate: Generate) -> None:
        """Refuse what only one process can do; raises :class:`ValueError`."""
        if self.type == "local":
            return
        backend = generate.backend
        if generate.keep is not None:
            raise ValueError(
                f"executor {self.type}: generate.keep ends where enough is kept, which only one "
                f"process can tell; set it to null and give generate.samples_per_query, or "
                f"executor.type to local"
            )
        if generate.resample is not None:
            raise ValueError(
                f"executor {self.type}: generate.resample looks up its models in one process; set "
                f"it to null, or executor.type to local"
            )
        if not backend.several:
            raise ValueError(
                f"executor {self.type}: the backend {backend.type} is asked by one process; set "
                f"executor.type to local, or generate.backend.type to local"
            )


EXECUTOR: dict[str, Any] = {"type": "local", "address": "auto"}
"""What files of before had there been such a section hold."""
