"""Every error that augesc raises on purpose, and what each asks of the user.

::

    AugescError                 one line for the user; exit code 2
    ├── InputError              a file given by the user holds something else than it should
    │   └── DamagedError            a file that a run wrote is not as it wrote it
    ├── RecipeError             a recipe has an unknown key, a wrong value, or lacks one
    ├── RunFolderError          the output folder cannot be used
    │   ├── SettingsChangedError    it was begun with other settings
    │   ├── DiskError               the disk is full or not writable
    │   ├── WorkerDiedError         a process that made rows was killed, or failed
    │   └── StoreError              an address cannot be read or written
    ├── CheckpointError         a model or tokenizer cannot be loaded, or does not fit the recipe
    ├── TrainingError           fine-tuning cannot continue (loss not finite, batch not divisible)
    ├── DownloadError           something on the Hub could not be had
    ├── PublishError            a corpus is not fit to be published, or the Hub did not take it
    ├── HandOverError           who was to be told of danger could not be
    ├── EndpointError           a model at an address does not answer as it should
    ├── StudyError              a study with people cannot be made, or does not take what was sent
    ├── ExecutorError           a cluster is not there, or its workers cannot do the work
    ├── BudgetError             what a run may spend is spent
    ├── ServeError              pages cannot be served: the port is taken, or somebody serves them
    └── MissingExtraError       an optional package is needed

A message says what was expected, what was found, and what mends it.
"""

from __future__ import annotations

from os import PathLike


class AugescError(Exception):
    """Root of the tree: its message is meant for the user as it stands."""


class InputError(AugescError):
    """A user's file is unreadable or breaks its format.

    ``path`` and ``line`` (1-based, where there are lines) are also put in front of the message.
    What is shown of a file may be no text: the message can be written as UTF-8 all the same.
    """

    def __init__(self, message: str, path: str | PathLike[str], line: int | None = None) -> None:
        self.message, self.path, self.line = message, str(path), line
        where = self.path if line is None else f"{self.path}, line {line}"
        said = f"{where}: {message}"
        super().__init__(said.encode("utf-8", "backslashreplace").decode())

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, int | None]]:
        """Let workers hand it back: by default an exception is made anew of its text alone."""
        return type(self), (self.message, self.path, self.line)


class DamagedError(InputError):
    """A file that a run wrote is gone, cut or changed; the stage that wrote it makes it again."""


class RecipeError(AugescError):
    """A recipe or a ``--set`` override cannot be understood."""


class RunFolderError(AugescError):
    """The output folder cannot be used as it is."""


class SettingsChangedError(RunFolderError):
    """The folder was begun with other settings; the message lists the keys that differ."""


class DiskError(RunFolderError):
    """Writing failed: disk full, quota reached, or no permission."""


class WorkerDiedError(RunFolderError):
    """A process that made rows for this one was killed, or failed by itself."""


class StoreError(RunFolderError):
    """An address cannot be read or written: no bucket, no permission, no answer."""


class CheckpointError(AugescError):
    """A model or tokenizer cannot be loaded or does not fit the recipe."""


class TrainingError(AugescError):
    """Fine-tuning cannot start or continue."""


class DownloadError(AugescError):
    """A file on the Hugging Face Hub could not be had."""


class PublishError(AugescError):
    """A corpus or model is not fit to be published as it is, or the Hub did not take it."""


class HandOverError(AugescError):
    """What a person in danger wrote could not be handed over to people."""


class EndpointError(AugescError):
    """The endpoint of a model does not answer as it should, or not for this key."""


class StudyError(AugescError):
    """A study with people cannot be made so, or an answer is not one that it takes.

    ``reason`` is a word for programs: ``expired``, ``no_place``, ``not_assigned``, ``bad_answer``,
    ``bad_entry`` (who came is not let in), ``at_work`` (another server), or ``settings``.
    """

    def __init__(self, message: str, reason: str = "settings") -> None:
        self.reason = reason
        super().__init__(message)


class ExecutorError(AugescError):
    """A cluster cannot be had, or what is there cannot do the work, or some of it is left."""


class ShardsLeftError(ExecutorError):
    """Workers elsewhere make the shards of a run, and some are left."""


class BudgetError(AugescError):
    """The budget of a run is spent; what was paid for is kept, and a larger one goes on there."""


class ServeError(AugescError):
    """Pages cannot be served: the port cannot be had, or they are being served already."""


class MissingExtraError(AugescError):
    """An optional dependency is not installed; the message holds the pip line."""


def install_extra(name: str) -> str:
    """Return what installs an extra of this package; messages and docs all say it so.

    No index has the package: it is installed from its repository.
    """
    return f"pip install -e '.[{name}]' in the clone of augesc"
