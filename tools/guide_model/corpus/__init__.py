"""What the model learns from: exercises of many kinds, each with examples held out."""

from tools.guide_model.corpus.exercise import Example, Split, Task
from tools.guide_model.corpus.mixture import TASKS, task

__all__ = ["TASKS", "Example", "Split", "Task", "task"]
