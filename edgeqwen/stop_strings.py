"""Cutting a stream of text at the first stop string, wherever the pieces happen to break."""

from collections.abc import Sequence


class StopStrings:
    """Passes pieces of text on until a stop string is complete, and never shows a part of one.

    The cut doesn't depend on how the text was divided into pieces: the stop string that is
    complete first wins, and of several that end at the same character the longest.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, piece: str) -> str:
        """Takes the next piece and returns the text that may be shown now.

        ``found`` tells afterwards whether a stop string ended the text; pieces after that are
        ignored.
        """
        if self.found is not None:
            return ""
        # Every match begins in the text that was held back or in the new piece, because the
        # longest possible beginning of a stop string is held back below.
        text = self._held + piece
        matches = [
            (start + len(stop), start, stop)
            for stop in self._stops
            if (start := text.find(stop)) >= 0
        ]
        if matches:
            _, start, self.found = min(matches)
            self._held = ""
            return text[:start]
        n_held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def flush(self) -> str:
        """Ends the text and returns what was held back: the beginning of a stop string at most."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Returns the length of the longest true beginning of ``stop`` that ``text`` ends with."""
    for n in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0
