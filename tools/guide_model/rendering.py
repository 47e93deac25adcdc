"""Documents as the text that the model reads: chat turns and holes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.guide_model.corpus.exercise import Example, Fill

CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")

END_OF_TEXT = "<|endoftext|>"
# As in the checkpoints of Qwen2.5, in the order of their ids.
SPECIAL_TOKENS = (
    END_OF_TEXT, "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>",
    "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
# Those that are text to a reader: they are shown, and not skipped, when tokens become text.
VISIBLE_TOKENS = SPECIAL_TOKENS[14:]

# What only the structure of a document may make. (``<tool_call>`` belongs to answers.)
_CONTROL = re.compile("|".join(re.escape(t) for t in SPECIAL_TOKENS if t not in VISIBLE_TOKENS))


class Piece(NamedTuple):
    """A text, and whether it is a part of an answer, to be learned.

    A mark is one special token of the document's structure. Elsewhere ``<|im_start|>`` and the like
    are what somebody wrote: the characters, in ordinary tokens.
    """

    text: str
    is_answer: bool
    is_mark: bool = False


def parts(document: Example | Fill) -> Iterator[Piece]:
    """Yields a document's pieces.

    Together they are what the chat template makes of the conversation; pieces begin and end where
    tokens do when the model is used.
    """
    match document:
        case Fill(prefix, suffix, answer):
            yield from (_mark("<|fim_prefix|>"), Piece(prefix, False))
            yield from (_mark("<|fim_suffix|>"), Piece(suffix, False), _mark("<|fim_middle|>"))
            yield from (Piece(answer, True), _mark(END_OF_TEXT, is_answer=True))
        case Example():
            yield from _turns(document)
            yield _mark(END_OF_TEXT)


def hole(document: Fill) -> str:
    """Returns the prompt that asks for the text in the hole."""
    return "".join(piece.text for piece in parts(document) if not piece.is_answer)


def writes_of_marks(document: Example | Fill) -> bool:
    """Whether somebody in a document writes what, read as text, would be taken for a mark."""
    return any(_CONTROL.search(piece.text) for piece in parts(document) if not piece.is_mark)


def _turns(document: Example) -> Iterator[Piece]:
    messages = list(document.messages)
    if document.tools:
        messages.insert(0, {"role": "system", "content": _offer(document)})
    for message in messages:
        is_answer = message["role"] == "assistant"
        yield _mark("<|im_start|>")
        if is_answer:
            yield from (Piece("assistant\n", False), Piece(message["content"], True))
        else:
            yield Piece(f"{message['role']}\n{message['content']}", False)
        yield from (_mark("<|im_end|>", is_answer=is_answer), Piece("\n", False))


def _mark(text: str, *, is_answer: bool = False) -> Piece:
    return Piece(text, is_answer, is_mark=True)


def _offer(document: Example) -> str:
    functions = "".join(f"\n{json.dumps(tool)}" for tool in document.tools)
    return (
        f"Functions:\n<tools>{functions}\n</tools>\n"
        "Call one with its name and arguments in <tool_call></tool_call>."
    )
