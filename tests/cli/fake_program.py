"""The command line with a fake model: ``python -m tests.cli.fake_program ARGUMENTS``.

$FAKE_SCRIPT is what the model answers to everything, $FAKE_STEP_S how long a token takes it.
"""

import os
from typing import Any

import edgeqwen
import edgeqwen.warmup
from edgeqwen.cli import main
from tests.fakes import fake_model


def load(path: Any, *, max_context: int | None = None, **_: Any) -> edgeqwen.Model:
    script = os.environ.get("FAKE_SCRIPT", "")
    model, engine = fake_model(os.fsencode(script), max_context=max_context or 1000)
    engine.step_s = float(os.environ.get("FAKE_STEP_S", "0"))
    return model


def warmup(path: Any, **_: Any) -> None:
    pass


if __name__ == "__main__":
    edgeqwen.load = load  # type: ignore[assignment]
    edgeqwen.warmup.warmup = warmup  # type: ignore[assignment]
    main()
