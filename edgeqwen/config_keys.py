"""Typed and bounded reading of configuration values from GGUF metadata or a config.json."""

from collections.abc import Mapping, Sequence

from edgeqwen.errors import FileFormatError


class Keys:
    """The values of one file by key; every error names the file, the key and what was found.

    A value of None (null in JSON) counts as absent, and a default of None means that the key is
    required. ``inside`` is the key of the object that holds these values, where they are nested.
    """

    def __init__(self, values: Mapping[str, object], source: str, inside: str = "") -> None:
        self.values = values
        self.source = source
        self._inside = inside and f"{inside}."

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Returns a whole number from low to high."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return value

    def real(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """Returns a number from low to high; NaN is never one."""
        value = self._get(key, default)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:  # type: ignore[operator]
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)  # type: ignore[arg-type]

    def flag(self, key: str, default: bool) -> bool:
        """Returns true or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Returns a string as it stands."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def nested(self, key: str) -> "Keys":
        """Returns the values of the object under a key, none where it is absent."""
        value = self._get(key, {})
        if not isinstance(value, Mapping):
            raise self.wrong(key, "an object")
        return Keys(value, self.source, self._inside + key)

    def place(self, key: str) -> str:
        """Returns the file and the key in full, as messages name them."""
        return f"{self.source}: {printable(self._inside + key)}"

    def wrong(self, key: str, expected: str) -> FileFormatError:
        """Returns the error for a value that isn't what it should be."""
        found = shown(self.values.get(key))
        return FileFormatError(f"{self.place(key)} is {found}, expected {expected}")

    def _get(self, key: str, default: object) -> object:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is None:
            raise FileFormatError(
                f"{self.place(key)} is missing; the model can't be run without it"
            )
        return default


def shown(value: object) -> str:
    """Returns a value from a file as a message may show it: short, printable, on one line."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, bool | int | float) or value is None:
        return repr(value)
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"


def printable(text: str, limit: int = 200) -> str:
    """Returns a text from a file made safe for a terminal: no control characters, not too long."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:limit])
