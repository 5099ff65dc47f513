"""The optimiser of both trainings: orthogonalised momentum for matrices, Adam for the rest.

Short trainings are limited by the number of steps, and the direction of a step counts more than its
cost at this size. Matrices (convolutions too, unrolled to output x rest) move by their momentum
with all singular values made equal (Muon: K. Jordan, 2024; the scale that lets it share Adam's
rate: J. Liu et al., arXiv 2502.16982); vectors and embeddings move by Adam.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def _orthogonal(batch: Tensor) -> Tensor:
    """Return matrices (n, rows, columns) with their singular values moved close to 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = batch.shape[1] > batch.shape[2]
    x = batch.mT if wide else batch
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(4):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if wide else x


class Optimiser(torch.optim.Optimizer):  # type: ignore[misc]
    """Muon for weights of two and more dimensions, Adam for the rest; one rate for both."""

    def __init__(
        self,
        named: Iterable[tuple[str, torch.nn.Parameter]],
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
    ) -> None:
        """Take named parameters; names with ``embedding`` and first and last layers get Adam."""
        self.momentum, self.betas = momentum, betas
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, weight in named:
            if not weight.requires_grad:
                continue
            plain = weight.ndim < 2 or "embedding" in name or min(weight.shape[:2]) < 8
            (others if plain else matrices).append(weight)
        groups: list[dict[str, Any]] = [
            {"params": matrices, "matrix": True},
            {"params": others, "matrix": False},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": 0.0})

    def step(self, _closure: Any = None) -> None:
        """Move every weight once."""
        with torch.no_grad():
            for group in self.param_groups:
                weights = [weight for weight in group["params"] if weight.grad is not None]
                (self._matrices if group["matrix"] else self._adam)(weights, group["lr"])

    def _matrices(self, weights: list[Tensor], rate: float) -> None:
        shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["mean"] = torch.zeros_like(weight)
            assert weight.grad is not None
            mean = state["mean"].lerp_(weight.grad, 1 - self.momentum)
            ahead = weight.grad.lerp(mean, self.momentum).flatten(1)
            shapes[(ahead.shape[0], ahead.shape[1])].append((weight, ahead))
        for (rows, columns), members in shapes.items():
            moves = _orthogonal(torch.stack([ahead for _, ahead in members]))
            scale = 0.2 * max(rows, columns) ** 0.5
            for (weight, _), move in zip(members, moves, strict=True):
                weight.add_(move.view(weight.shape), alpha=-rate * scale)

    def _adam(self, weights: list[Tensor], rate: float) -> None:
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["step"] = torch.zeros(())
                state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
            assert weight.grad is not None
            state["step"] += 1
            age = float(state["step"])
            state["mean"].lerp_(weight.grad, 1 - self.betas[0])
            state["square"].lerp_(weight.grad.square(), 1 - self.betas[1])
            size = (state["square"] / (1 - self.betas[1] ** age)).sqrt_().add_(1e-8)
            weight.addcdiv_(state["mean"], size, value=-rate / (1 - self.betas[0] ** age))
