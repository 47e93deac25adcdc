"""Documents as the text that the model reads: chat turns and holes."""

import json
from collections.abc import Iterator
from pathlib import Path

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


def parts(document: Example | Fill) -> Iterator[tuple[str, bool]]:
    """Yields a document's pieces of text, and whether each is an answer, to be learned.

    Together they are what the chat template makes of the conversation; pieces begin and end where
    tokens do when the model is used.
    """
    match document:
        case Fill():
            yield hole(document), False
            yield document.answer + END_OF_TEXT, True
        case Example():
            yield from _turns(document)
            yield END_OF_TEXT, False


def hole(document: Fill) -> str:
    """Returns the prompt that asks for the text in the hole."""
    prefix, suffix = document.prefix, document.suffix
    return f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"


def _turns(document: Example) -> Iterator[tuple[str, bool]]:
    said = ""
    messages = list(document.messages)
    if document.tools:
        said += f"<|im_start|>system\n{_offer(document)}<|im_end|>\n"
    for message in messages:
        if message["role"] != "assistant":
            said += f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
            continue
        yield said + "<|im_start|>assistant\n", False
        yield message["content"] + "<|im_end|>", True
        said = "\n"
    yield said, False


def _offer(document: Example) -> str:
    functions = "".join(f"\n{json.dumps(tool)}" for tool in document.tools)
    return (
        f"Functions:\n<tools>{functions}\n</tools>\n"
        "Call one with its name and arguments in <tool_call></tool_call>."
    )
