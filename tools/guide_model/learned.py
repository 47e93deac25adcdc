"""What the model that ships has learned of the guide, which may have changed since."""

import json
from pathlib import Path

from tools.guide_model.guide import Guide

LEARNED = Path(__file__).parent / "learned.json"


def answers(guide: Guide) -> dict[str, str]:
    """Returns each topic's answer, by its first question."""
    return {topic.questions[0]: topic.answer for topic in guide.topics}


def write_learned(guide: Guide, path: Path) -> None:
    """Writes what a model trained on the guide as it is has learned."""
    path.write_text(
        json.dumps(answers(guide), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )


def read_learned() -> dict[str, str]:
    """Reads what the model that ships has learned."""
    found: dict[str, str] = json.loads(LEARNED.read_text("utf-8"))
    return found
