"""Tokens: arguments of kernels whose whole meaning is in their type."""

from typing import Any


class Token:
    """A kernel is compiled for each token that it takes, and finds it in the argument's type.

    Its code reads ``lanes(token)`` and the like; operations find the token itself as
    ``type.value``. At run time it is a null pointer. Tokens are equal if their names are.
    """

    __slots__ = ()

    @property
    def token_name(self) -> str:
        """What tells this token from all others, of its own class and of others."""
        raise NotImplementedError

    @property
    def _numba_type_(self) -> Any:
        # Where Numba looks when an array kernel is called with a token.
        from edgeqwen.simd.types import TokenType

        return TokenType(self)
