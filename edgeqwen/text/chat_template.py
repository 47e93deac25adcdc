"""The chat template of a model: a conversation to the text, or the tokens, that the model knows."""

import datetime
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError

from edgeqwen.errors import TemplateError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.text.messages import plain_messages, plain_tools
from edgeqwen.text.template_budget import (
    BASE_STEPS,
    STEPS_PER_WEIGHT,
    Budget,
    OverBudgetError,
    weight,
)
from edgeqwen.text.template_marks import Marks, all_texts
from edgeqwen.text.template_sandbox import RefusedError, TemplateSandbox
from edgeqwen.text.tokenizer import Tokenizer

# Several times the largest that are known.
MAX_SOURCE = 1 << 16

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class ChatTemplate:
    """A Jinja chat template, as model files carry it; safe to use from several threads.

    A template is foreign code: it runs in a sandbox, and a hostile one ends in a TemplateError
    after a second or two.
    """

    def __init__(
        self,
        source: str,
        *,
        variables: Mapping[str, str] | None = None,
        name: str = "chat template",
    ) -> None:
        """``variables``: texts such as ``bos_token`` for the template; ``name`` for messages.

        Raises TemplateError for a source that can't be compiled.
        """
        self.source = source
        self._name = name
        self._variables = dict(variables or {})
        self._program = _Program(source, name)
        self._marked: tuple[Marks, _Program, dict[str, int]] | None = None

    @classmethod
    def from_gguf(cls, path_or_file: str | Path | GgufFile) -> "ChatTemplate":
        """Makes the template of a GGUF file, ChatML where a file with its tokens has none.

        Raises TemplateError for a broken template and where there is none at all.
        """
        if not isinstance(path_or_file, GgufFile):
            with GgufFile.open(path_or_file) as file:
                return cls.from_gguf(file)
        metadata, path = path_or_file.metadata, path_or_file.path
        tokens: Sequence[str] = metadata.get("tokenizer.ggml.tokens") or ()
        source = metadata.get("tokenizer.chat_template")
        if source is None:
            if not {"<|im_start|>", "<|im_end|>"}.issubset(tokens):
                raise TemplateError(
                    f"{path}: has no tokenizer.chat_template, and no <|im_start|> for the usual "
                    "one: this model continues texts, it doesn't hold conversations"
                )
            source = CHATML
        if not isinstance(source, str):
            raise TemplateError(f"{path}: tokenizer.chat_template is {source!r}, expected text")
        variables = {}
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
            id = metadata.get(f"tokenizer.ggml.{key}_token_id")
            if type(id) is int and 0 <= id < len(tokens):
                variables[f"{name}_token"] = tokens[id]
        return cls(source, variables=variables, name=f"{path}: chat template")

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """Returns the text of a conversation.

        ``messages``: mappings with ``role``, ``content`` and whatever else the template reads.
        ``tools``: JSON schemas of functions. ``add_generation_prompt``: begin the answer.
        Raises TemplateError where the template doesn't suit the conversation, or is hostile.
        """
        return self._program.run(
            _Input(plain_messages(messages), plain_tools(tools), add_generation_prompt),
            self._variables,
        )

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """Returns the token ids of a conversation; only the template makes special tokens.

        What stands in messages and tools stays text, ``<|im_end|>`` too. One exception: in the
        content of the assistant's messages, tokens that belong to answers (``<tool_call>``) are
        what they are. Raises as ``render`` does.
        """
        given = _Input(plain_messages(messages), plain_tools(tools), add_generation_prompt)
        text = self._program.run(given, self._variables)
        ends = {end for token in tokenizer.special for end in (token[0], token[-1])}
        typed = all_texts([given.messages, given.tools])
        if not any(end in typed_text for typed_text in typed for end in ends):
            return tokenizer.encode(text, allow_special=True)
        marks, program = self._with_marks(tokenizer)
        variables = {name: marks.mark(value) for name, value in self._variables.items()}
        # A template that cuts answers at a special token needs them as they are.
        for attempt in (given.with_answers(marks.mark_spoken), given):
            marked = program.run(attempt, variables)
            if marks.restore(marked) == text:
                ids: list[int] = []
                for piece, special in marks.split(marked):
                    ids += tokenizer.encode(piece)
                    ids += [] if special is None else [special]
                return ids
        raise TemplateError(
            f"{self._name}: handles its own special tokens in such a way that they can't be told "
            "from the ones that were typed; leave '<' and '>' out of the messages, or render the "
            "text and encode it yourself"
        )

    def _with_marks(self, tokenizer: Tokenizer) -> tuple[Marks, "_Program"]:
        if self._marked is None or self._marked[2] != tokenizer.special:
            marks = Marks(tokenizer.special, tokenizer.user_defined)
            program = _Program(self.source, self._name, marks.mark_template)
            self._marked = (marks, program, tokenizer.special)
        return self._marked[:2]


class _Input:
    """What a template is rendered with, and when; the same in every attempt at one rendering."""

    def __init__(
        self,
        messages: list[dict[str, Any]],
        tools: list[Any] | None,
        add_generation_prompt: bool,
    ) -> None:
        self.messages = messages
        self.tools = tools
        self.add_generation_prompt = add_generation_prompt
        self.now = datetime.datetime.now()

    def with_answers(self, change: Callable[[str], str]) -> "_Input":
        """Returns a copy with changed contents of the assistant's messages."""
        messages = [
            {**message, "content": change(message["content"])}
            if message["role"] == "assistant" and isinstance(message.get("content"), str)
            else message
            for message in self.messages
        ]
        result = _Input(messages, self.tools, self.add_generation_prompt)
        result.now = self.now
        return result


class _Program:
    """A compiled template with its sandbox, for one rendering at a time."""

    def __init__(
        self, source: str, name: str, change: Callable[[nodes.Template], None] | None = None
    ) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._sandbox = TemplateSandbox()
        if len(source) > MAX_SOURCE:
            raise TemplateError(
                f"{name}: has {len(source)} characters, expected at most {MAX_SOURCE}"
            )
        try:
            self._template = self._sandbox.compile_guarded(source, change)
        except TemplateSyntaxError as error:
            raise TemplateError(f"{name}, line {error.lineno}: {error.message}") from None
        except Exception as error:
            raise TemplateError(f"{name}: can't be compiled: {_reason(error)}") from None

    def run(self, given: _Input, variables: Mapping[str, str]) -> str:
        """Renders the template; TemplateError for everything that goes wrong in it."""
        steps = weight([given.messages, given.tools], limit=1 << 40) * STEPS_PER_WEIGHT
        with self._lock:
            self._sandbox.budget = Budget(BASE_STEPS + steps)
            self._sandbox.now = given.now
            try:
                return self._sandbox.run(
                    self._template,
                    {
                        **variables,
                        "messages": given.messages,
                        "tools": given.tools,
                        "documents": None,
                        "add_generation_prompt": given.add_generation_prompt,
                    },
                )
            except RefusedError as error:
                raise TemplateError(f"{self._name}: {_reason(error)}") from None
            except (OverBudgetError, RecursionError, MemoryError):
                raise TemplateError(
                    f"{self._name}: takes too long or makes too much text for this conversation; "
                    "it is broken or hostile"
                ) from None
            except Exception as error:
                raise TemplateError(
                    f"{self._name}, line {self._line(error)}: {_reason(error)}; "
                    "it doesn't suit this conversation"
                ) from None

    def _line(self, error: Exception) -> int:
        line, traceback = 1, error.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == "<template>":
                line = self._template.get_corresponding_lineno(traceback.tb_lineno)
            traceback = traceback.tb_next
        return line


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
