"""TOML tables with known keys, and what is told when they hold anything else."""

from collections.abc import Iterator
from typing import Any


class GuideError(ValueError):
    """The guide contradicts itself or its schema."""


class Table:
    """A TOML table whose keys are taken out one by one, until none may be left."""

    def __init__(self, table: dict[str, Any], where: str) -> None:
        self._table = dict(table)
        self.where = where

    def text(self, key: str, *, may_be_empty: bool = False) -> str:
        value = self._take(key)
        if not isinstance(value, str) or value != value.strip() or not (value or may_be_empty):
            raise GuideError(
                f"{self.where}: {key} is {value!r}; expected a text without spaces at its ends"
            )
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._take(key)
        if not isinstance(values, list):
            raise GuideError(f"{self.where}: {key} is {values!r}; expected a list of texts")
        for value in values:
            if not isinstance(value, str) or not value or value != value.strip():
                raise GuideError(
                    f"{self.where}: {key} holds {value!r}; expected texts without spaces at "
                    "their ends"
                )
        return tuple(values)

    def tables(self, key: str) -> Iterator["Table"]:
        values = self._table.pop(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise GuideError(f"{self.where}: {key} is no list of tables; write [[{key}]]")
        for number, value in enumerate(values, 1):
            yield Table(value, f"{self.where}, {key} {number}")

    def end(self) -> None:
        if self._table:
            raise GuideError(
                f"{self.where}: unknown key {sorted(self._table)[0]!r}; remove it or correct it"
            )

    def _take(self, key: str) -> Any:
        if key not in self._table:
            raise GuideError(f"{self.where}: {key} is missing; add it")
        return self._table.pop(key)
