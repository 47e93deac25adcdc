"""Why tests for another CPU can't be run here."""


class UnavailableError(Exception):
    """Something that this machine lacks; the message says what, and what to do."""
