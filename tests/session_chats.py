"""Conversations in sessions, always answered in the same way."""

from pathlib import Path
from typing import Any

import edgeqwen

GREEDY: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1}
QUESTIONS = ("What does --top-k do?", "37+48", "How do I quantize a model to 4 bits?")


def chat_of(model: edgeqwen.Model, path: Path | None = None, **options: Any) -> edgeqwen.Chat:
    return model.chat(session=path, **{**GREEDY, **options})


def fresh_answer(model: edgeqwen.Model, messages: list[dict[str, Any]], **options: Any) -> str:
    """Returns what a conversation in memory answers to the last of the messages."""
    chat = chat_of(model)
    chat.messages = [dict(message) for message in messages[:-1]]
    return chat.send(messages[-1]["content"], **options).text
