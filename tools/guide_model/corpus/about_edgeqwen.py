"""Questions about edgeqwen: the topics and options of the guide, in many wordings."""

from collections import Counter
from functools import cache
from random import Random

from tools.guide_model.corpus.exercise import Example, Split, ask, split_of
from tools.guide_model.corpus.rewording import reworded
from tools.guide_model.corpus.typing_habits import as_typed
from tools.guide_model.guide import Guide, Option, Topic, read_guide

_FRAMES = (
    "How do I {}?",
    "How can I {}?",
    "How to {}?",
    "I want to {}.",
    "I want to {}. How?",
    "How do you {}?",
    "Can you tell me how to {}?",
    "Show me how to {}.",
    "Tell me how to {}.",
    "What is the command to {}?",
    "What do I do to {}?",
    "What is the way to {}?",
    "Explain how to {}.",
    "I would like to {}.",
    "I need to {}.",
    "Is there a way to {}?",
    "Can I {}?",
    "Help me {}.",
    "Please {}.",
    "{}",
)
_OPTION_FRAMES = (
    "What does {} do?",
    "What is {} for?",
    "What does {} mean?",
    "What is {}?",
    "Explain {}.",
    "Tell me about {}.",
    "What does the option {} do?",
    "How do I use {}?",
    "When do I need {}?",
    "What is the option {} good for?",
    "{}",
    "{}?",
)


@cache
def guide() -> Guide:
    """Returns the guide, which is read once."""
    return read_guide()


def topics(random: Random, split: Split) -> Example:
    """Returns a question that a topic's wishes or wordings make, and the topic's answer.

    Held out are combinations of a wish and its frame.
    """
    if split == "held_out":
        topic = random.choice(_with_held_out())
        return ask(random.choice(_combined(_FRAMES, topic.wishes, split)), topic.answer)
    topic = random.choice(guide().topics)
    combined = _combined(_FRAMES, topic.wishes, split)
    if not combined or random.random() < 0.55:
        question = random.choice((*topic.questions, topic.title))
    else:
        question = random.choice(combined)
    return ask(_varied(random, question, topic.held_out, topic.wishes), topic.answer)


def wordings(random: Random, split: Split) -> Example:
    """Returns a question in the words that a topic keeps for measuring."""
    topic = random.choice([topic for topic in guide().topics if topic.held_out])
    return ask(random.choice(topic.held_out), topic.answer)


def options(random: Random, split: Split) -> Example:
    """Returns a question about an option, by its name or by what it is good for."""
    option = random.choice(guide().options)
    named = _combined(_OPTION_FRAMES, _mentions(option), split)
    wished = _combined(_FRAMES, option.wishes, split)
    question = random.choice(wished if wished and random.random() < 0.5 else named)
    if split == "train":
        question = _varied(random, question, (), option.wishes)
    return ask(question, answer(option))


def answer(option: Option) -> str:
    """Returns what is said about an option: its forms, its commands, its meaning and default."""
    value = f" {option.value}" if option.value else ""
    forms = " or ".join(f"`{flag}{value}`" for flag in option.flags)
    default = f" Default: {option.default}." if option.default else ""
    if "edgeqwen" in option.commands:
        commands = "any command" if len(option.commands) > 1 else "`edgeqwen` itself"
        return f"{forms} of {commands}: {option.meaning}.{default}"
    names = [f"`edgeqwen {command}`" for command in option.commands]
    commands = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{forms} of {commands}: {option.meaning}.{default}"


def _mentions(option: Option) -> tuple[str, ...]:
    """Returns the ways to name an option; with its command where others share the name."""
    uses = Counter(flag for other in guide().options for flag in set(other.flags))
    names = []
    for flag in option.flags:
        if uses[flag] == 1:
            names.append(flag)
        for command in option.commands:
            program = "edgeqwen" if command == "edgeqwen" else f"edgeqwen {command}"
            names += [f"{flag} of {command}", f"{flag} in {program}", f"{program} {flag}"]
    return tuple(names)


@cache
def _with_held_out() -> tuple[Topic, ...]:
    """Returns the topics that have a combination on the held-out side."""
    return tuple(t for t in guide().topics if _combined(_FRAMES, t.wishes, "held_out"))


@cache
def _combined(frames: tuple[str, ...], fillings: tuple[str, ...], split: Split) -> tuple[str, ...]:
    """Returns every filling in every frame, as far as it is on this side of the split."""
    texts = (
        frame.format(filling)
        for frame in frames
        for filling in fillings
        if split_of(frame, filling) == split
    )
    return tuple(text if text.startswith("-") else text[:1].upper() + text[1:] for text in texts)


def _varied(random: Random, question: str, kept: tuple[str, ...], wishes: tuple[str, ...]) -> str:
    """Returns the question as one person or another would put it, but never one that is held out.

    ``kept`` are whole phrasings that are held out, beside those that the wishes make.
    """
    varied = as_typed(random, reworded(random, question))
    return question if _plain(varied) in _held_out(kept, wishes) else varied


@cache
def _held_out(kept: tuple[str, ...], wishes: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(_plain, (*kept, *_combined(_FRAMES, wishes, "held_out"))))


def _plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())
