"""Rules of operators that work on each element by itself: what comes from above times the slope."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from examples.gradients.tape import Rule, Step, Value

# (gradient of the output, output, inputs...) to the gradients of the inputs, before any broadcast.
Formula = Callable[..., Sequence["Value | None"]]


def as_rule(formula: Formula) -> Rule:
    """The formula, and the sum over what was broadcast."""

    def rule(step: Step, slope: Value) -> Sequence[Value | None]:
        found = formula(slope, step.output, *step.inputs)
        return [
            each.summed_to(step.out_shape, step.shape(slot)) if each is not None else None
            for slot, each in enumerate(found)
        ]

    return rule


def _extremes(slope: Value, y: Value, *inputs: Value) -> Sequence[Value]:
    """Max and Min: the inputs that are the output share its gradient."""
    chosen = [x.equals(y).as_number() for x in inputs]
    count = chosen[0]
    for each in chosen[1:]:
        count = count + each
    return [slope * each / count for each in chosen]


def _clip(
    slope: Value, y: Value, x: Value, low: Value | None = None, high: Value | None = None
) -> Sequence[Value | None]:
    if low is not None:
        slope = (x < low).where(0.0, slope)
    if high is not None:
        slope = (x > high).where(0.0, slope)
    return (slope, None, None)


FORMULAS: Mapping[str, Formula] = {
    "Identity": lambda g, y, x: (g,),
    "Neg": lambda g, y, x: (-g,),
    "Add": lambda g, y, a, b: (g, g),
    "Sub": lambda g, y, a, b: (g, -g),
    "Mul": lambda g, y, a, b: (g * b, g * a),
    "Div": lambda g, y, a, b: (g / b, -g * y / b),
    "Sum": lambda g, y, *x: (g,) * len(x),
    "Pow": lambda g, y, x, p: (g * p.as_number() * x ** (p.as_number() - 1.0), None),
    "Reciprocal": lambda g, y, x: (-g * y * y,),
    "Sqrt": lambda g, y, x: (g / (y * 2.0),),
    "Exp": lambda g, y, x: (g * y,),
    "Log": lambda g, y, x: (g / x,),
    "Sin": lambda g, y, x: (g * x.apply("Cos"),),
    "Cos": lambda g, y, x: (-g * x.apply("Sin"),),
    "Atan": lambda g, y, x: (g / (x * x + 1.0),),
    "Tanh": lambda g, y, x: (g * (1.0 - y * y),),
    "Sigmoid": lambda g, y, x: (g * y * (1.0 - y),),
    "Softplus": lambda g, y, x: (g * x.apply("Sigmoid"),),
    "Erf": lambda g, y, x: (g * (-x * x).apply("Exp") * (2 / math.sqrt(math.pi)),),
    "Relu": lambda g, y, x: ((x > 0.0).where(g, 0.0),),
    "Abs": lambda g, y, x: (g * x.apply("Sign"),),
    "Clip": _clip,
    "Max": _extremes,
    "Min": _extremes,
    "Where": lambda g, y, c, a, b: (None, c.where(g, 0.0), c.where(0.0, g)),
}
