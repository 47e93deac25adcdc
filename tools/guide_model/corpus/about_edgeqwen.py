"""Questions about edgeqwen: the topics and options of the guide, in many wordings."""

from collections import Counter
from functools import cache
from random import Random

from tools.guide_model.corpus.exercise import Example, Split, ask, split_of
from tools.guide_model.corpus.rewording import may_become, reworded
from tools.guide_model.corpus.typing_habits import as_typed, plain
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
        topic = random.choice([topic for topic in guide().topics if unseen(topic)])
        return ask(random.choice(unseen(topic)), topic.answer)
    topic = random.choice(guide().topics)
    combined = _combined(_FRAMES, topic.wishes, split)
    if not combined or random.random() < 0.55:
        question = random.choice((*topic.questions, topic.title))
    else:
        question = random.choice(combined)
    return ask(_varied(random, question, topic.held_out, topic.wishes), topic.answer)


def wordings(random: Random, split: Split) -> Example:
    """Returns a question in the words that a topic keeps for measuring."""
    topic = random.choice([topic for topic in guide().topics if unseen_wordings(topic)])
    return ask(random.choice(unseen_wordings(topic)), topic.answer)


def options(random: Random, split: Split) -> Example:
    """Returns a question about an option, by its name or by what it is good for."""
    if split == "held_out":
        option = random.choice([option for option in guide().options if unseen_uses(option)])
        return ask(random.choice(unseen_uses(option)), answer(option))
    option = random.choice(guide().options)
    named = _combined(_OPTION_FRAMES, _mentions(option), split)
    wished = _combined(_FRAMES, option.wishes, split)
    question = random.choice(wished if wished and random.random() < 0.5 else named)
    return ask(_varied(random, question, (), option.wishes), answer(option))


# What is measured: only questions that nothing trained on could have turned into, since rewording
# and typing habits take a training question some way towards those that are held out.


@cache
def unseen(topic: Topic) -> tuple[str, ...]:
    """Returns a topic's held-out combinations of wishes and frames."""
    return _apart(_combined(_FRAMES, topic.wishes, "held_out"), trained(topic))


@cache
def unseen_wordings(topic: Topic) -> tuple[str, ...]:
    """Returns the wordings that a topic keeps for measuring."""
    return _apart(topic.held_out, trained(topic))


@cache
def unseen_uses(option: Option) -> tuple[str, ...]:
    """Returns the held-out questions about an option."""
    held_out = (
        *_combined(_OPTION_FRAMES, _mentions(option), "held_out"),
        *_combined(_FRAMES, option.wishes, "held_out"),
    )
    return _apart(held_out, trained_uses(option))


def trained(topic: Topic) -> tuple[str, ...]:
    """Returns the questions of a topic that training begins with, before they are varied."""
    return *_combined(_FRAMES, topic.wishes, "train"), *topic.questions, topic.title


def trained_uses(option: Option) -> tuple[str, ...]:
    """Returns the questions about an option that training begins with."""
    named = _combined(_OPTION_FRAMES, _mentions(option), "train")
    return *named, *_combined(_FRAMES, option.wishes, "train")


def _apart(held_out: tuple[str, ...], trained: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for text in held_out if not any(may_become(t, text) for t in trained))


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
    return question if plain(varied) in _held_out(kept, wishes) else varied


@cache
def _held_out(kept: tuple[str, ...], wishes: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(plain, (*kept, *_combined(_FRAMES, wishes, "held_out"))))
