"""The errors that tricot raises on purpose.

Each carries one string, so that it survives pickling between Ray processes. Anything else that is raised is a bug
and propagates.
"""


class TricotError(Exception):
    """Base of every error that a user can mend; jobs print it as one line and exit with `exit_code`."""

    exit_code = 1


class ConfigError(TricotError):
    """The configuration is wrong; raised before Ray starts. The text names every wrong key."""

    exit_code = 2


class InputError(TricotError):
    """An input file or table is wrong; the text names the path, the column or row, and the remedy."""


class RunConflictError(TricotError):
    """The output directory belongs to another run; the text names the fields that differ."""

    exit_code = 2


class BudgetError(TricotError):
    """More rows were rejected than the job's error budget allows; the text has the counts by reason."""


class StalledError(TricotError):
    """Nothing moved for too long; the text says what each engine was doing and where its state was written."""


class TrainingError(TricotError):
    """Training went wrong; the text names the step, what was seen and the last good checkpoint."""


class RowCountError(TricotError):
    """rows in != rows out + rejected + skipped: a bug that would otherwise lose rows silently."""


class ParityError(TricotError):
    """A server answers differently from the offline scores; the text has the size of the difference and a pair."""
