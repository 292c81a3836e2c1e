"""The executor that a recipe chooses."""

from __future__ import annotations

from importlib.util import find_spec

from augesc_builder.config import executor as settings
from augesc_builder.errors import MissingExtraError, install_extra
from augesc_builder.executors.base import Executor


def executor_of(chosen: settings.Executor, *, by_array: bool = True) -> Executor:
    """Return the executor of a recipe.

    ``by_array`` is false of a stage that no array helps with: that behind it makes all.

    Raises :class:`~augesc_builder.errors.ExecutorError` where it cannot be had here, and
    :class:`~augesc_builder.errors.MissingExtraError` without ray.
    """
    if chosen.type == "slurm" and by_array:
        from augesc_builder.executors.slurm import slurm_executor

        return slurm_executor()
    if chosen.type == "ray":
        if find_spec("ray") is None:
            raise MissingExtraError(f"executor ray needs Ray: {install_extra('ray')}")
        from augesc_builder.executors.ray import RayExecutor

        return RayExecutor(chosen.address)
    from augesc_builder.executors.local import LocalExecutor

    return LocalExecutor()
