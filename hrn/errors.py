"""The exceptions for user errors."""


class HRNError(Exception):
    """User error: a bad file, a bad flag, or a combination that cannot work. The CLIs print it and exit with 2."""


class UnreadableError(HRNError):
    """A file that may be intact cannot be read now, for example for lack of permission or because of its version."""
