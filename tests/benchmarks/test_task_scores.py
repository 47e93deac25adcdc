"""Tasks asked of a model: examples, what counts as right, and the interval of a share."""

from random import Random

import pytest

from benchmarks.task_scores import (
    GROUPS,
    Score,
    answer_of,
    ask_all,
    goal_of,
    goal_text,
    held_out_examples,
    wilson_interval,
)
from tests.fakes import fake_model
from tools.guide_model.corpus import mixture
from tools.guide_model.corpus.exercise import Example, Fill, Split, Task, ask


def task(*answers: str) -> Task:
    """Returns a task with so many examples, one for each answer."""

    def make(random: Random, split: Split) -> Example:
        assert split == "held_out"
        i = random.randrange(len(answers))
        return ask(f"question {i}", answers[i])

    return Task("fake", "A fake", 1, make)


def test_examples_are_never_alike_and_always_the_same() -> None:
    examples = held_out_examples(mixture.task("sums"), 40)
    assert len({repr(example) for example in examples}) == 40
    assert examples == held_out_examples(mixture.task("sums"), 40)


def test_a_small_task_gives_all_that_it_has() -> None:
    assert len(held_out_examples(task("a", "b", "c"), 200)) == 3


@pytest.mark.parametrize(
    ("said", "n_right"), [("15: 85", 1), ("15: 85 ", 0), ("15:85", 0), ("15: 8", 0), ("", 0)]
)
def test_right_is_word_for_word(said: str, n_right: int) -> None:
    model, _ = fake_model(said.encode())
    (score,) = ask_all(model, [task("15: 85")], 5)
    assert (score.name, score.title, score.right, score.n) == ("fake", "A fake", n_right, 1)
    answers = [(wrong.question, wrong.expected, wrong.answer) for wrong in score.wrong]
    assert answers == ([] if n_right else [("question 0", "15: 85", said)])


def test_an_answer_that_does_not_end_is_wrong() -> None:
    model, _ = fake_model(b"yes" * 100)
    assert answer_of(model, ask("?", "yes")) == "yes" * 11 + "ye…"


def test_the_answer_is_greedy_whatever_the_file_says() -> None:
    model, _ = fake_model(b"a", temperature=50.0)
    assert {answer_of(model, ask("?", "a")) for _ in range(5)} == {"a"}


def test_the_model_reads_all_but_the_answer() -> None:
    model, engine = fake_model(b"x")
    answer_of(model, ask("Well?", "x"))
    text = bytes(token for token in engine.prefilled[0] if token < 256)
    assert text == b"user\nWell?\nassistant\n"


def test_tools_are_offered_by_the_models_own_template(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = fake_model(b"x")
    offered = []
    encode = model.chat_template.encode

    def spy(tokenizer, messages, *, tools):  # type: ignore[no-untyped-def]
        offered.append(tools)
        return encode(tokenizer, messages)

    monkeypatch.setattr(model.chat_template, "encode", spy)
    messages = ask("?", "x").messages
    tool = {"type": "function"}
    answer_of(model, Example(messages, (tool,)))
    answer_of(model, Example(messages))
    assert offered == [(tool,), None]


def test_a_hole_is_a_raw_prompt_with_special_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model, engine = fake_model(b"b")
    texts = []

    def encode(text: str, *, allow_special: bool = False) -> list[int]:
        texts.append((text, allow_special))
        return [1, 2, 3]

    monkeypatch.setattr(model.tokenizer, "encode", encode)
    assert answer_of(model, Fill("a = ", "\n", "b")) == "b"
    assert texts[0] == ("<|fim_prefix|>a = <|fim_suffix|>\n<|fim_middle|>", True)
    assert engine.prefilled == [[1, 2, 3]]


def test_every_task_is_in_one_group() -> None:
    grouped = [name for group in GROUPS for name in group.tasks]
    assert sorted(grouped) == sorted(task.name for task in mixture.TASKS)


def test_a_group_adds_up_its_own_tasks() -> None:
    sums, others, *_ = GROUPS
    scores = [Score("sums", "", "01"), Score("sort", "", "0111"), Score("units", "", "111011")]
    assert sums.total(scores).answers == "01"
    assert others.total(scores).answers == "0111111011"
    assert (others.total(scores).right, others.total(scores).n) == (8, 10)


def test_repeating_is_a_group_of_its_own_without_a_goal() -> None:
    (group,) = (group for group in GROUPS if "repeat" in group.tasks)
    assert (group.title, group.tasks, group.goal) == ("Repeat what is said", ("repeat",), None)


def test_every_task_has_the_goal_of_its_group() -> None:
    assert [goal_of(name) for name in ("sums", "sort", "repeat", "wordings")] == [
        0.95, 0.90, None, None,
    ]  # fmt: skip


def test_a_goal_that_is_not_reached_is_marked() -> None:
    assert goal_text(Score("a", "", "1" * 9 + "0"), 0.9) == "90 %"
    assert goal_text(Score("a", "", "1" * 8 + "00"), 0.9) == "90 %, below"
    assert goal_text(Score("a", "", "0"), None) == ""


def test_answers_are_kept_in_the_order_of_the_examples() -> None:
    model, _ = fake_model(b"yes")
    asked = task("yes", "no", "yes", "yes", "perhaps")
    expected = "".join("01"[e.answer == "yes"] for e in held_out_examples(asked, 5))
    (score,) = ask_all(model, [asked], 5)
    assert score.answers == expected
    assert (score.right, score.n, len(score.wrong)) == (3, 5, 2)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I
        (15, 148, 0.0624, 0.1605),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(right: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)
