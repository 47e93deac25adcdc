"""A thread team for tapes that come and go: each that it ran stays until its threads are gone."""

from edgeqwen.executor import Tape, Team


class LastingTeam(Team):
    """A team whose tapes needn't be kept by others: a thread that is late still looks at the last.

    It is done with what their operations point to: all chunks were taken.
    """

    def __init__(self, n_threads: int) -> None:
        super().__init__(n_threads)
        self._tapes: dict[int, Tape] = {}

    def run(self, tape: Tape, n_tokens: int, n_positions: int) -> None:
        self._tapes[id(tape)] = tape
        super().run(tape, n_tokens, n_positions)
