"""The one exception for mistakes that a person can mend; the front doors print it and leave with code 2."""


class HRNError(Exception):
    """Bad input: a file, a flag or a combination of them. The message says what is wrong, where, and what to do."""
