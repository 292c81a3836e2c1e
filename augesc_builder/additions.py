"""The door for what stands outside the package: :func:`register`."""

from __future__ import annotations

from augesc_builder.pipeline.filter.requirements import Requirement, register_requirement
from augesc_builder.pipeline.generate.backends import register_backend
from augesc_builder.pipeline.generate.backends.base import Backend
from augesc_builder.sources.base import SourceInfo
from augesc_builder.sources.registry import register_source


def register(addition: SourceInfo | Requirement | type[Backend]) -> None:
    """Add a source, a requirement or a backend to those that recipes can name.

    Call it when your module is imported. Name the module as an entry point in the group
    ``augesc.plugins`` of your package, and the command line and worker processes find it too.

    Raises ``ValueError`` where the name is one of ours, and ``TypeError`` for anything else.
    """
    if isinstance(addition, SourceInfo):
        register_source(addition)
    elif isinstance(addition, Requirement):
        register_requirement(addition)
    elif isinstance(addition, type) and issubclass(addition, Backend):
        register_backend(addition)
    else:
        raise TypeError(
            f"expected a SourceInfo, a Requirement or a subclass of Backend, found {addition!r:.80}"
        )
