"""The messages of a conversation as a session file keeps them, beside the tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeqwen.errors import SessionError
from edgeqwen.text.messages import plain_messages

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Transcript:
    """The messages, and of an answer under way where it begins.

    ``first_kept``: the first message after turns that were forgotten; 0 where none were. While the
    last message is being answered, ``answers`` says where in the session's tokens the answer
    begins: (tokens before it, number of edits), for as long as the session counts so many edits.
    """

    messages: list[dict[str, Any]]
    first_kept: int = 0
    answers: tuple[tuple[int, int], ...] = ()

    def encode(self) -> bytes:
        """Returns it as JSON. Raises TemplateError for messages that are no plain data."""
        messages = plain_messages(self.messages) if self.messages else []
        told = {
            "version": _VERSION,
            "messages": messages,
            "first_kept": self.first_kept,
            "answers": self.answers,
        }
        return json.dumps(told, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, data: bytes, source: object) -> "Transcript":
        """Reads what ``encode`` wrote. Raises SessionError for anything else."""
        if not data:
            return cls([])
        try:
            told = json.loads(data)
            if told["version"] != _VERSION:
                raise ValueError(f"version {told['version']!r}, expected {_VERSION}")
            messages = plain_messages(told["messages"]) if told["messages"] else []
            answers = tuple((int(start), int(edits)) for start, edits in told["answers"])
            first_kept = int(told["first_kept"])
            if not 0 <= first_kept <= len(messages) or min((a for a, _ in answers), default=0) < 0:
                raise ValueError("it names messages or tokens that there aren't")
            return cls(messages, first_kept, answers)
        except Exception as error:
            raise SessionError(
                f"{source}: its messages can't be read: {error or type(error).__name__}; begin a "
                "new session"
            ) from error

    def restored(self, partial_answer: str | None) -> list[dict[str, Any]]:
        """Returns the messages, with what there is of an answer that was broken off."""
        if partial_answer is None:
            return self.messages
        return [*self.messages, {"role": "assistant", "content": partial_answer}]

    def answer_tokens(self, tokens: Sequence[int], edits: int) -> Sequence[int]:
        """Returns which of a session's tokens are an answer that was broken off; often none."""
        return next((tokens[start:] for start, counted in self.answers if counted == edits), [])
