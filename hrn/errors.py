"""The exceptions for user errors."""


class HRNError(Exception):
    """User error: a bad file, a bad flag, or a combination that cannot work. The CLIs print it and exit with 2."""


class ReportedError(HRNError):
    """A user error that another process of the run reports."""


class UnreadableError(HRNError):
    """The file could not be read but may be intact, for example because of missing permissions or an unsupported version."""
