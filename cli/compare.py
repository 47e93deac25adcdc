"""``edgeqwen compare``: what a file in fewer bits does otherwise than the one in more."""

import json
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeqwen.cli import options
from edgeqwen.cli.terminal import clean, valid_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeqwen import Generation, Model
    from edgeqwen.cli.comparison_report import Report

# What `edgeqwen bench` measures by default.
_PROMPT_TOKENS, _NEW_TOKENS, _REPETITIONS = 512, 64, 3


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The reference: a GGUF file, say in f16.")],
    b: Annotated[
        Path, typer.Argument(metavar="B", help="A GGUF file of the same model, say in q4_0.")
    ],
    file: options.TextFile = None,
    context: Annotated[
        int | None,
        typer.Option(
            "-c",
            "--context",
            min=2,
            help="Tokens of a window; by default 512, or a model's context if that is less.",
        ),
    ] = None,
    stride: options.Stride = None,
    special: options.Special = False,
    prompt: Annotated[
        str,
        typer.Option("-p", "--prompt", help="What both answer, greedily; '' leaves it out."),
    ] = "What does it cost to store a model in fewer bits?",
    max_tokens: Annotated[
        int, typer.Option("-n", "--max-tokens", min=1, help="Tokens of an answer at most.")
    ] = 128,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it stands: no chat template.")
    ] = False,
    no_speed: Annotated[
        bool, typer.Option("--no-speed", help="Leave out the measurement of speed.")
    ] = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Compare two files of a model: KL divergence, perplexity, size, speed, answers.

    Both are in memory at once, and read the text in windows that overlap. What stands after ± is
    the standard error. Ctrl-C ends it early, with the figures so far.
    """
    from edgeqwen.cli.comparison_report import Report, file_facts, n_same_tokens
    from edgeqwen.cli.interrupts import first_ctrl_c
    from edgeqwen.cli.loading import load_model
    from edgeqwen.cli.progress import count_bar
    from edgeqwen.cli.side_by_side import print_answers
    from edgeqwen.cli.text_file import read_text
    from edgeqwen.guide import held_out_text

    text = held_out_text() if file is None else read_text(file)
    files = file_facts(a), file_facts(b)
    # Not before: it brings Numba, for which a misspelled name shouldn't have to wait.
    from edgeqwen.common_tokens import common_tokens
    from edgeqwen.comparison import compare as compare_models

    def show(lines: str) -> None:
        if lines and not as_json:
            print(lines, end="\n\n", flush=True)

    names = str(a), str(b)
    prompt = valid_unicode(prompt)
    stopped = threading.Event()
    with ExitStack() as stack:
        one, other = models = [
            stack.enter_context(load_model(path, threads=threads, context=None)) for path in (a, b)
        ]
        # What can't be answered is refused here, and not after all measurements.
        answers = [_start(model, prompt, max_tokens, raw=raw) for model in models if prompt]
        tokens = common_tokens(one, other, text, allow_special=special or file is None, names=names)
        stack.enter_context(first_ctrl_c(stopped.set))
        with count_bar("comparing") as bar:
            found = compare_models(
                one,
                other,
                tokens,
                context=context,
                stride=stride,
                names=names,
                cancelled=stopped.is_set,
                progress=bar,
                running=lambda value: bar.describe(f"comparing: KL divergence {value:.4g}"),
            )
        report = Report(files, found, n_threads=models[0].engine.n_threads)
        show(report.comparison_lines())
        if not no_speed and not stopped.is_set():
            _measure_speed(models, report, stopped.is_set)
            show(report.speed_lines())
        if answers and not stopped.is_set():
            _generate(answers, max_tokens, stopped.is_set)
            report.prompt, report.answers = prompt, answers
            if not as_json:
                print(f"prompt: {clean(prompt)}\n")
                print_answers(
                    [answer.text for answer in answers], n_same_tokens=n_same_tokens(answers)
                )
    if as_json:
        print(json.dumps(report.fields()))
    if stopped.is_set():
        raise KeyboardInterrupt


def _start(model: "Model", prompt: str, max_tokens: int, *, raw: bool) -> "Generation":
    """Returns a greedy answer that is still to be generated."""
    start = model.generate if raw else model.chat().send
    # The files may recommend different penalties, which say nothing of their weights.
    return start(
        prompt,
        max_tokens=max_tokens,
        temperature=0,
        repetition_penalty=1,
        presence_penalty=0,
        frequency_penalty=0,
    )


def _measure_speed(
    models: "Sequence[Model]", report: "Report", cancelled: "Callable[[], bool]"
) -> None:
    """Adds the speeds of both models to the report."""
    from edgeqwen.cli.measure import speeds
    from edgeqwen.cli.progress import count_bar

    n_context = min(model.engine.max_context for model in models)
    report.n_prompt = min(_PROMPT_TOKENS, n_context)
    report.n_generate = min(_NEW_TOKENS, n_context)
    with count_bar("measuring the speed") as bar:
        report.speeds = speeds(
            models,
            n_prompt=report.n_prompt,
            n_generate=report.n_generate,
            depth=0,
            repetitions=_REPETITIONS,
            progress=bar,
            cancelled=cancelled,
        )


def _generate(
    answers: "Sequence[Generation]", max_tokens: int, cancelled: "Callable[[], bool]"
) -> None:
    """Generates the answers, one after the other, as far as nobody stops it."""
    from edgeqwen.cli.progress import count_bar

    with count_bar("answering") as bar:
        for i, answer in enumerate(answers):
            if cancelled():
                answer.cancel()
            for _ in answer:
                bar(i * max_tokens + len(answer.tokens), len(answers) * max_tokens)
                if cancelled():
                    answer.cancel()
