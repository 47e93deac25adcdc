"""Tasks asked of a model: which examples, what counts as right, and how sure a share is."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from edgeqwen import Model
from tools.guide_model.corpus.exercise import Example, Fill, Task
from tools.guide_model.rendering import hole

# So many examples in a row that were all drawn before mean that there are no others.
_PATIENCE = 3000
# An answer that is this much longer than the right one is wrong, whatever follows.
_SPARE_TOKENS = 32
_Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Wrong:
    """A question with the answer that was wanted and the one that came."""

    question: str
    expected: str
    answer: str


@dataclass(frozen=True, slots=True)
class Score:
    """Which of a task's examples a model answered right, and what it said to the others.

    ``answers`` has a character for every example, in their order: 1 is right, 0 is wrong.
    """

    name: str
    title: str
    answers: str
    wrong: tuple[Wrong, ...] = ()

    @property
    def right(self) -> int:
        return self.answers.count("1")

    @property
    def n(self) -> int:
        return len(self.answers)

    def figures(self) -> dict[str, Any]:
        """Returns what a JSON file keeps of it."""
        return {"name": self.name, "title": self.title, "right": self.right, "n": self.n}


@dataclass(frozen=True, slots=True)
class Group:
    """Tasks that are counted together.

    ``goal`` is the share of right answers that the project demands, if any: of all of them
    together and of each, so that an easy task can't hide a hard one.
    """

    title: str
    tasks: tuple[str, ...]
    goal: float | None = None

    def total(self, scores: Iterable[Score]) -> Score:
        """Returns the sum of those scores that belong to the group."""
        mine = [score.answers for score in scores if score.name in self.tasks]
        return Score("+".join(self.tasks), self.title, "".join(mine))


GROUPS = (
    Group("Sums of two and three digits", ("sums",), 0.95),
    Group(
        "Other tasks with one right answer",
        (
            "differences",
            "products",
            "reverse",
            "sort",
            "count",
            "units",
            "json",
            "fill",
            "calls",
            "replies",
        ),
        0.90,
    ),
    Group("Repeat what is said", ("repeat",)),
    Group("Questions about edgeqwen, recombined", ("topics", "options"), 0.95),
    Group("Questions about edgeqwen, in other words", ("wordings",)),
    Group("Small talk, in other words", ("small_talk",)),
)


def held_out_examples(task: Task, n: int) -> list[Example | Fill]:
    """Returns n held-out examples, always the same and no two alike; all of them if it has less."""
    random = Random(f"held out: {task.name}")
    found: dict[str, Example | Fill] = {}
    n_in_vain = 0
    while len(found) < n and n_in_vain < _PATIENCE:
        example = task.make(random, "held_out")
        n_in_vain = n_in_vain + 1 if repr(example) in found else 0
        found.setdefault(repr(example), example)
    return list(found.values())


def answer_of(model: Model, example: Example | Fill) -> str:
    """Returns what the model says, greedily; an answer without an end is cut and marked with …."""
    if isinstance(example, Fill):
        prompt = model.tokenizer.encode(hole(example), allow_special=True)
    else:
        prompt = model.chat_template.encode(
            model.tokenizer, example.messages[:-1], tools=example.tools or None
        )
    limit = len(model.tokenizer.encode(example.answer)) + _SPARE_TOKENS
    generation = model.generate(prompt, max_tokens=limit, temperature=0)
    text = generation.text
    return text if generation.finish_reason == "eos" else text + "…"


def ask_all(
    model: Model,
    tasks: Sequence[Task],
    n: int,
    ready: Callable[[Score], None] = lambda score: None,
) -> list[Score]:
    """Returns a score for every task; ``ready`` is called with each as soon as it is there.

    An answer is right when it is word for word the expected one, spaces and punctuation included,
    and the model ends it there.
    """
    scores = []
    for task in tasks:
        asked = [(example, answer_of(model, example)) for example in held_out_examples(task, n)]
        answers = "".join("01"[answer == example.answer] for example, answer in asked)
        wrong = tuple(
            Wrong(_question(example), example.answer, answer)
            for example, answer in asked
            if answer != example.answer
        )
        scores.append(Score(task.name, task.title, answers, wrong))
        ready(scores[-1])
    return scores


def _question(example: Example | Fill) -> str:
    """Returns what was asked last, or the text with its hole."""
    if isinstance(example, Fill):
        return f"{example.prefix}[...]{example.suffix}"
    return example.messages[-2]["content"]


def share(score: Score) -> float:
    """Returns the share of right answers, from 0 to 1; NaN where nothing was asked."""
    return score.right / score.n if score.n else math.nan


def goal_text(score: Score, goal: float | None) -> str:
    """Returns a goal in per cent and, where the score is below it, that; nothing without a goal."""
    if goal is None:
        return ""
    return f"{100 * goal:.0f} %" + (", below" if share(score) < goal else "")


def goal_of(task: str) -> float | None:
    """Returns the goal of a task, which is that of its group."""
    return next((group.goal for group in GROUPS if task in group.tasks), None)


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share, from 0 to 1; (0, 1) where nothing was asked.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    Journal of the American Statistical Association 22 (1927).
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = right / n, _Z_95**2
    centre = p + z2 / (2 * n)
    half = _Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    # At the ends, rounding would leave 1e-17 and the like.
    low = 0.0 if right == 0 else (centre - half) / scale
    high = 1.0 if right == n else (centre + half) / scale
    return low, high
