"""The exceptions for user errors."""


class HRNError(Exception):
    """User error: a bad file, a bad flag, or a combination that cannot work. The CLIs print it and exit with 2."""


class UnreadableError(HRNError):
    """A file cannot be read now, for example for lack of permission. It may be intact."""
