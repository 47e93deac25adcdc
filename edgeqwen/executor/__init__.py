"""The executor: operations are recorded once on a tape and replayed by a team of threads."""

from edgeqwen.executor.tape import Call, Tape
from edgeqwen.executor.team import Team

__all__ = ["Call", "Tape", "Team"]
