"""The exception for user errors."""


class HRNError(Exception):
    """User error: a bad file, a bad flag, or a combination that cannot work. The CLIs print it and exit with 2."""
