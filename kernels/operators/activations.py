"""The activations that LSTM, GRU and RNN name in their attributes, with alpha, beta and clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.expressions.terms import Expr, apply, const, larger, select, smaller
from ramforge.compiler.ir import Node

Activation = Callable[[Expr], Expr]


def _affine(x: Expr, alpha: float, beta: float) -> Expr:
    return x * alpha + beta


def _leaky_relu(x: Expr, alpha: float, beta: float) -> Expr:
    return select(x < 0, x * alpha, x)


def _thresholded_relu(x: Expr, alpha: float, beta: float) -> Expr:
    return select(x < alpha, const(0, x.dtype), x)


def _scaled_tanh(x: Expr, alpha: float, beta: float) -> Expr:
    return apply("tanh", x * beta) * alpha


def _hard_sigmoid(x: Expr, alpha: float, beta: float) -> Expr:
    return smaller(larger(_affine(x, alpha, beta), 0), 1)


def _elu(x: Expr, alpha: float, beta: float) -> Expr:
    return select(x < 0, (apply("exp", x) - 1) * alpha, x)


def _softsign(x: Expr, alpha: float, beta: float) -> Expr:
    return x / (apply("abs", x) + 1)


def _softplus(x: Expr, alpha: float, beta: float) -> Expr:
    return larger(x, 0) + apply("log", apply("exp", -apply("abs", x)) + 1)


@dataclass(frozen=True, slots=True)
class Kind:
    """An activation; ``alpha`` and ``beta`` are their defaults, NaN where there is none, and None
    where it has no such number.
    """

    formula: Callable[[Expr, float, float], Expr]
    alpha: float | None = None
    beta: float | None = None


KINDS = {
    "relu": Kind(lambda x, alpha, beta: larger(x, 0)),
    "tanh": Kind(lambda x, alpha, beta: apply("tanh", x)),
    "sigmoid": Kind(lambda x, alpha, beta: apply("sigmoid", x)),
    "affine": Kind(_affine, 1.0, 0.0),
    "leakyrelu": Kind(_leaky_relu, 0.01),
    "thresholdedrelu": Kind(_thresholded_relu, 1.0),
    "scaledtanh": Kind(_scaled_tanh, np.nan, np.nan),
    "hardsigmoid": Kind(_hard_sigmoid, 0.2, 0.5),
    "elu": Kind(_elu, 1.0),
    "softsign": Kind(_softsign),
    "softplus": Kind(_softplus),
}


def names(node: Node, default: Sequence[str]) -> list[str]:
    """The activations of a node, in the order of the attribute."""
    return [str(name).lower() for name in node.attr("activations", default) or default]


def numbers(node: Node, chosen: Sequence[str]) -> list[tuple[float, float]]:
    """Alpha and beta of each activation: those that have one take the next that is given."""
    alphas, betas = (iter(node.attr(f"activation_{name}", ())) for name in ("alpha", "beta"))

    def number(default: float | None, given: Iterable[float]) -> float:
        return 0.0 if default is None else float(next(iter(given), default))

    kinds = [KINDS[name] for name in chosen]
    return [(number(kind.alpha, alphas), number(kind.beta, betas)) for kind in kinds]


def activation(name: str, alpha: float, beta: float, limit: float | None) -> Activation:
    """The activation of a value that is clipped before."""
    formula = KINDS[name].formula
    if limit is None:
        return lambda x: formula(x, alpha, beta)
    return lambda x: formula(smaller(larger(x, -limit), limit), alpha, beta)


def complaints(node: Node, default: Sequence[str]) -> Iterator[str]:
    """What is wrong with the activations of a node."""
    chosen = names(node, default)
    unknown = [name for name in chosen if name not in KINDS]
    if unknown:
        yield f"activation {unknown[0]!r} is none of ONNX"
        return
    if len(chosen) != len(default):
        yield f"{len(chosen)} activations are given, expected {len(default)}"
    for word in ("alpha", "beta"):
        takers = [name for name in chosen if getattr(KINDS[name], word) is not None]
        given = len(node.attr(f"activation_{word}", ()))
        if given > len(takers):
            yield f"{given} values of activation_{word} are given, and {len(takers)} taken"
    if np.isnan(numbers(node, chosen)).any():
        yield "ScaledTanh needs activation_alpha and activation_beta"
