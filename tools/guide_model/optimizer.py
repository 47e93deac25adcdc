"""Muon for the matrices of the layers, AdamW for all the rest.

Muon replaces the momentum of a matrix by the nearest orthogonal one, found by a few Newton-Schulz
steps (Keller Jordan, "Muon: An optimizer for hidden layers in neural networks", 2024). On this
network it needs about half the tokens that AdamW alone needs.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

# Of the quintic whose slope at zero is steepest while its fixed points stay near 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_N_STEPS = 5


def orthogonalized(matrices: Tensor) -> Tensor:
    """Returns [n, rows, columns] with all singular values near 1 and the same singular vectors."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_N_STEPS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class Muon(Optimizer):
    """Momentum, orthogonalised; matrices of one shape are treated together."""

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves every matrix by the learning rate times sqrt(max(1, rows / columns))."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                directions = []
                for matrix in matrices:
                    average = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                    average.lerp_(matrix.grad, 1 - group["momentum"])
                    directions.append(matrix.grad.lerp(average, group["momentum"]))
                step = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for matrix, direction in zip(
                    matrices, orthogonalized(torch.stack(directions)), strict=True
                ):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction, alpha=-step)
