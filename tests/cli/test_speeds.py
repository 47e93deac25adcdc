"""The speeds of several models: they take turns, and Ctrl-C ends it after one."""

from typing import Any

from edgeqwen import Model
from edgeqwen.cli.measure import speeds
from tests.fakes import FakeEngine, fake_model


def watched_models(n: int) -> tuple[list[Model], list[int]]:
    """Returns models, and a list that grows with the number of each that makes a step."""
    models, steps = [], []

    def watch(engine: FakeEngine, number: int) -> None:
        def before_step() -> None:
            steps.append(number)

        engine.before_step = before_step

    for number in range(n):
        model, engine = fake_model()
        watch(engine, number)
        models.append(model)
    return models, steps


def measured(models: list[Model], **options: Any) -> list[dict[str, Any]]:
    sizes = {"n_prompt": 9, "n_generate": 2, "depth": 0, "repetitions": 3}
    quiet = {"progress": lambda done, total: None}
    return speeds(models, **{**sizes, **quiet, **options})


def test_models_take_turns() -> None:
    models, steps = watched_models(2)
    found = measured(models)
    # A prompt is two steps of the fake engine. First, a small one and a single token.
    turn = [0] * 4 + [1] * 4
    assert steps == [0] * 3 + [1] * 3 + 3 * turn
    for figures in found:
        for key in ("prefill_tps", "decode_tps"):
            samples = figures[f"{key}_samples"]
            assert len(samples) == 3
            assert figures[key] == sorted(samples)[1] > 0


def test_what_is_left_out_takes_no_step() -> None:
    models, steps = watched_models(1)
    (found,) = measured(models, n_prompt=0)
    assert steps == [0] * (1 + 3 * 2)
    assert (found["prefill_tps"], found["prefill_tps_samples"]) == (None, [])


def test_cancelled_it_tells_of_the_turns_before() -> None:
    models, _ = watched_models(2)
    seen: list[tuple[int, int]] = []
    one, other = measured(
        models,
        progress=lambda *counts: seen.append(counts),
        cancelled=lambda: len(seen) == 4,
    )
    assert seen == [(0, 6), (1, 6), (2, 6), (3, 6)]
    assert [len(figures["decode_tps_samples"]) for figures in (one, other)] == [2, 1]


def test_cancelled_at_once_there_are_none() -> None:
    models, _ = watched_models(2)
    for figures in measured(models, cancelled=lambda: True):
        assert [*figures.values()] == [None, None, [], []]
