"""The errors that a user can meet. Each message says what was wrong, where, what was expected and what to do.

Commands print the message of an `LgsrrError` and exit with its `exit_code`; any other exception is a defect of ours and
keeps its traceback.
"""

from __future__ import annotations


class LgsrrError(Exception):
    """Base of every error that is the input's or the surroundings' fault, not ours."""

    exit_code = 1
    may_be_the_machine = False
    """Whether the surroundings may be at fault: then a command points to `python -m lgsrr.doctor`."""


class DataError(LgsrrError):
    """A table or a record is not what it should be: names the file, the row, the value and what was expected."""


class ConfigError(LgsrrError, ValueError):
    """A setting has a value that cannot be: names the setting, the value and what was expected."""

    exit_code = 2


class StorageError(DataError):
    """A disk or a store does not do what it should: no permission, no room, no credentials, no network."""

    may_be_the_machine = True


class MachineError(ConfigError):
    """A setting asks for what is not here: a key, a GPU, so many CPUs."""

    may_be_the_machine = True


class EncoderError(LgsrrError):
    """A text encoder cannot be had or is of a kind that is not supported."""

    may_be_the_machine = True


class ModelError(LgsrrError):
    """A saved model or checkpoint is missing, truncated, or made for other data."""

    may_be_the_machine = True


class TrainingError(LgsrrError):
    """Training cannot go on: names the epoch, the step and the utterances."""

    may_be_the_machine = True


class TrackingError(LgsrrError):
    """The tracking server or a run that was named cannot be had."""

    may_be_the_machine = True


class ClipError(LgsrrError, ValueError):
    """A clip cannot be decoded, or is no clip: names the file, the frame and the reason."""


class PromptError(LgsrrError, ValueError):
    """A prompt cannot be asked: it is empty, too long, or its marks and its clips differ."""


class CanaryError(LgsrrError):
    """A video model does not speak: names what it said and the versions that it runs on."""

    may_be_the_machine = True
