"""The loop of ``edgeqwen chat``: reads lines, answers them, obeys the commands among them."""

import contextlib
import random
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from edgeqwen.cli.answers import PromptProgress, cut_short, ended_with_context, show, stats_line
from edgeqwen.cli.terminal import clean_line, error_line, note_line, valid_unicode
from edgeqwen.errors import ContextFullError, EdgeqwenError

if TYPE_CHECKING:
    from edgeqwen import Chat, Generation
    from edgeqwen.options import SamplingKeywords

_HELP = """\
/help          this list
/clear         forget the conversation, keep the system prompt
/system TEXT   begin anew with this system prompt; alone: with the model's own
/regen         another answer to the last message
/edit TEXT     the last message was meant to be this
/undo          take the last message and its answer back
/stats         what the last answer took
/quit          leave (so does Ctrl-D)
Ctrl-C stops an answer. A message that begins with a slash needs a space before it."""

# For another answer where the temperature is 0; Qwen2.5 Instruct recommends it.
_REGEN_TEMPERATURE = 0.7


def _edit_lines() -> None:
    """Gives input() line editing and history, where the platform has them."""
    with contextlib.suppress(ImportError):
        import readline

        # So that several pasted lines are one message; Python switches it off for its own prompt.
        if "libedit" not in (readline.__doc__ or ""):
            readline.parse_and_bind("set enable-bracketed-paste on")


class Conversation:
    """One conversation with the person or the pipe at standard input.

    ``greedy``: the temperature is 0, so that a message alone decides on its answer.
    """

    def __init__(
        self, chat: "Chat", *, greedy: bool, max_tokens: int | None, stop: Sequence[str]
    ) -> None:
        self._chat = chat
        self._greedy = greedy
        self._options: dict[str, Any] = {"max_tokens": max_tokens, "stop": stop}
        self._last: Generation | None = None
        self._interactive = sys.stdin.isatty()

    def what_was_said(self) -> str:
        """Returns how far a session's conversation has come, for the first line."""
        path, n = self._chat.session, len(self._chat.messages)
        if path is None:
            return ""
        name = clean_line(path.stem)
        return f"{name} goes on after {n} messages; " if n else f"{name} begins; "

    def run(self) -> None:
        """Answers line after line until the input ends or the user leaves."""
        if self._interactive:
            _edit_lines()
        while (line := self._read()) is not None:
            try:
                if not self._obey_or_answer(line):
                    return
            except EdgeqwenError as error:
                if not self._interactive:
                    raise
                advice = "; /clear begins anew" if isinstance(error, ContextFullError) else ""
                error_line(f"{error}{advice}")
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                print()

    def _read(self) -> str | None:
        """Returns the next line, or None at the end of the input."""
        if not self._interactive:
            line = sys.stdin.readline()
            return valid_unicode(line) if line else None
        while True:
            try:
                return valid_unicode(input("> "))
            except EOFError:
                print()
                return None
            except KeyboardInterrupt:
                print("\n(Ctrl-D or /quit leaves)")

    def _obey_or_answer(self, line: str) -> bool:
        """Does what a line asks for; False when it asks to leave."""
        if not line.startswith("/"):
            if text := line.strip():
                self._answer(text)
            return True
        command, _, argument = line.strip().partition(" ")
        match command:
            case "/quit" | "/exit":
                return False
            case "/help":
                print(_HELP)
            case "/clear":
                self._begin_anew(keep_system=True)
                print("The conversation is forgotten.")
            case "/system":
                self._begin_anew(keep_system=False)
                if argument.strip():
                    self._chat.messages.append({"role": "system", "content": argument.strip()})
                    self._chat.truncate(1)  # a session keeps it
                whose = "this" if argument.strip() else "the model's own"
                print(f"A new conversation begins, with {whose} system prompt.")
            case "/regen":
                self._regenerate()
            case "/edit":
                self._edit(argument.strip())
            case "/undo":
                self._undo()
            case "/stats":
                print(stats_line(self._last.stats) if self._last else "There is no answer yet.")
            case _:
                print(f"There is no command {clean_line(command)}; /help lists them.")
        return True

    def _begin_anew(self, *, keep_system: bool) -> None:
        messages = self._chat.messages
        has_system = bool(messages) and messages[0]["role"] == "system"
        self._chat.truncate(int(keep_system and has_system))

    def _last_question(self) -> int | None:
        """Returns the place of the user's last message."""
        roles = [message["role"] for message in self._chat.messages]
        return len(roles) - 1 - roles[::-1].index("user") if "user" in roles else None

    def _edit(self, text: str) -> None:
        place = self._last_question()
        if place is None or not text:
            print("There is no message yet." if text else "/edit TEXT: what should it be?")
        else:
            self._show(lambda **options: self._chat.edit(place, text, **options))

    def _undo(self) -> None:
        place = self._last_question()
        if place is None:
            print("There is no message yet.")
        else:
            self._chat.truncate(place)
            print("The last message and its answer are forgotten.")

    def _regenerate(self) -> None:
        if self._last_question() is None:
            print("There is no answer yet.")
            return
        # With a fixed seed, the same answer would come again.
        sampling: SamplingKeywords = {"seed": random.getrandbits(32)}
        if self._greedy:
            # The likeliest tokens are the same again, whatever the seed.
            print(
                "At temperature 0 the same answer would come again: "
                f"this one is at temperature {_REGEN_TEMPERATURE}."
            )
            sampling["temperature"] = _REGEN_TEMPERATURE
        self._show(self._chat.regenerate, **sampling)

    def _answer(self, text: str) -> None:
        self._show(lambda **options: self._chat.send(text, **options))

    def _show(
        self, answer: Callable[..., "Generation"], **sampling: Unpack["SamplingKeywords"]
    ) -> None:
        """Shows an answer while it comes."""
        progress = PromptProgress()
        n_forgotten = self._chat.n_forgotten
        generation = answer(progress=progress, **self._options, **sampling)
        self._last = generation
        show(generation, progress)
        if (n := self._chat.n_forgotten - n_forgotten) > 0:
            turns = f"{n} earlier turns are" if n > 1 else "an earlier turn is"
            note_line(f"(the context was full: {turns} forgotten)")
        if ended_with_context(generation, self._options["max_tokens"]):
            note_line(
                f"({cut_short(generation)}; /clear begins anew, --context sets a longer one, "
                "--context-shift goes on without the oldest turns)"
            )
        elif self._interactive and generation.finish_reason == "length":
            print(f"(cut after {generation.stats.n_generated} tokens: --max-tokens)")
        if not self._interactive and generation.finish_reason == "cancelled":
            raise KeyboardInterrupt
