"""The training loop: deterministic, resumable, on the CPU."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tools.guide_model.dataset import Dataset
from tools.guide_model.network import Network, Shape
from tools.guide_model.optimizer import Muon

# What follows from nothing, such as a question, counts little; it is learned so that the model
# knows what a conversation looks like.
_QUESTION_WEIGHT = 0.1
# Tokens that go through the network at once: their activations should stay in the cache.
_TOKENS_TOGETHER = 2048


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast the network learns."""

    n_steps: int
    n_warmup: int = 40
    # The learning rates fall to zero over this last part of the steps.
    cooling: float = 0.6
    matrix_lr: float = 0.006
    other_lr: float = 0.012
    seed: int = 1

    def rate(self, step: int) -> float:
        """Returns what part of the learning rates a step uses."""
        left = (self.n_steps - step) / (self.n_steps * self.cooling)
        return min(1.0, (step + 1) / self.n_warmup, left)


def train(
    dataset: Dataset,
    shape: Shape,
    schedule: Schedule,
    state_path: Path,
    progress: Callable[[int, float], None],
    *,
    save_every: int = 100,
) -> Network:
    """Returns the trained network.

    ``progress(step, loss)`` is called after every step. The state is kept in ``state_path``, after
    every ``save_every`` steps; from there an interrupted training goes on, to the same result bit
    by bit on the same number of threads. A state of other settings is refused with a ValueError.
    """
    torch.use_deterministic_algorithms(True)
    # Every new tensor would be filled first, for code that reads what it never wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(schedule.seed)
    network = Network(shape)
    matrices, others = _parameters(network)
    optimizers = (
        Muon(matrices, lr=schedule.matrix_lr),
        torch.optim.AdamW(others, lr=schedule.other_lr, betas=(0.9, 0.95), weight_decay=0.0),
    )
    settings = json.dumps([asdict(shape), asdict(schedule), dataset.digest])
    first = _resume(state_path, settings, network, optimizers)
    for step in range(first, schedule.n_steps):
        for optimizer, lr in zip(optimizers, (schedule.matrix_lr, schedule.other_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr * schedule.rate(step)
        loss = _learn(network, dataset, step)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        progress(step, loss)
        if (step + 1) % save_every == 0 or step + 1 == schedule.n_steps:
            _save(state_path, settings, step + 1, network, optimizers)
    return network


def _parameters(network: Network) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the matrices of the layers, and all the rest."""
    matrices, others = [], []
    for name, parameter in network.named_parameters():
        is_matrix = parameter.dim() == 2 and not name.startswith("embed")
        (matrices if is_matrix else others).append(parameter)
    return matrices, others


def _learn(network: Network, dataset: Dataset, step: int) -> float:
    """Adds the gradients of a step and returns its mean loss."""
    tokens, answers = (torch.from_numpy(array) for array in dataset.step(step))
    tokens = tokens.long()
    weights = torch.where(answers[:, 1:], 1.0, _QUESTION_WEIGHT)
    total = weights.sum()
    sum_of_losses = 0.0
    n_rows = max(1, _TOKENS_TOGETHER // (tokens.shape[1] - 1))
    for first in range(0, len(tokens), n_rows):
        here = slice(first, first + n_rows)
        logits = network.logits(network(tokens[here, :-1]))
        losses = functional.cross_entropy(
            logits.flatten(0, 1), tokens[here, 1:].flatten(), reduction="none"
        )
        loss = (losses * weights[here].flatten()).sum() / total
        loss.backward()
        sum_of_losses += loss.item()
    return sum_of_losses


def _resume(
    path: Path,
    settings: str,
    network: Network,
    optimizers: tuple[torch.optim.Optimizer, ...],
) -> int:
    """Loads a state where there is one; returns the step to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["settings"] != settings:
        raise ValueError(
            f"{path}: holds a training with other settings or another corpus; remove it to begin "
            "anew"
        )
    network.load_state_dict(state["network"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


def _save(
    path: Path,
    settings: str,
    step: int,
    network: Network,
    optimizers: tuple[torch.optim.Optimizer, ...],
) -> None:
    """Writes a state, complete or not at all."""
    state = {
        "settings": settings,
        "step": step,
        "network": network.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)
