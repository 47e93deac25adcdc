"""Documents as text: what the chat template would write, cut where tokens are."""

from itertools import islice
from random import Random

import pytest

from edgeqwen.text.chat_template import ChatTemplate
from tools.guide_model.corpus import mixture
from tools.guide_model.corpus.exercise import Example, Fill, ask
from tools.guide_model.rendering import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    hole,
    parts,
    writes_of_marks,
)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_conversations_are_what_the_template_renders(split: mixture.Split) -> None:
    template = ChatTemplate(CHAT_TEMPLATE)
    n = 0
    for document in islice(mixture.documents(Random(5), split), 200):
        if isinstance(document, Example):
            rendered = template.render(
                document.messages, tools=document.tools or None, add_generation_prompt=False
            )
            assert "".join(piece.text for piece in parts(document)) == rendered + END_OF_TEXT
            n += 1
    assert n > 100


def test_an_answer_begins_where_the_template_asks_for_it() -> None:
    example = mixture.task("calls").make(Random(1), "train")
    assert isinstance(example, Example)
    prompt = ChatTemplate(CHAT_TEMPLATE).render(
        example.messages[:-1], tools=example.tools, add_generation_prompt=True
    )
    pieces = list(parts(example))
    at = next(i for i, piece in enumerate(pieces) if piece.is_answer)
    assert "".join(piece.text for piece in pieces[:at]) == prompt
    assert pieces[at] == (example.answer, True, False)
    assert pieces[at + 1] == ("<|im_end|>", True, True)
    assert not any(piece.is_answer for piece in pieces[at + 2 :])


def test_messages_of_the_role_tool_become_responses() -> None:
    text = ChatTemplate(CHAT_TEMPLATE).render(
        [
            {"role": "user", "content": "both?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "1"},
            {"role": "tool", "content": "2"},
        ],
        add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>user\nboth?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
        "<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n"
        "</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_hole_stands_between_the_marks() -> None:
    fill = Fill("a = ", "\n", "1")
    assert hole(fill) == "<|fim_prefix|>a = <|fim_suffix|>\n<|fim_middle|>"
    assert "".join(piece.text for piece in parts(fill)) == f"{hole(fill)}1{END_OF_TEXT}"
    assert [piece.text for piece in parts(fill) if piece.is_answer] == ["1", END_OF_TEXT]


def test_only_the_structure_has_marks() -> None:
    example = ask("What is <|im_end|> for?", "`<|im_end|>` ends a turn.")
    assert [piece.text for piece in parts(example) if piece.is_mark] == [
        *("<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>", END_OF_TEXT),
    ]
    assert writes_of_marks(example)
    assert not writes_of_marks(ask("What ends a turn?", "A mark."))
    # It belongs to answers.
    assert not writes_of_marks(ask("Add 1 and 2.", "<tool_call>"))
