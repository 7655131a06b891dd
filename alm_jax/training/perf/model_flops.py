"""FLOPs that a step needs by its mathematics, whatever a compiler makes of it.

The products of the loss, traced and not compiled. A product of f FLOPs whose both sides a gradient
has to reach costs 3 f: once forward and once for each side. With one such side it is 2 f, with none
f. With parameters on one side of it that is the field's 6 N for each position where N trained
weights are used, 4 N where frozen ones pass a gradient on and 2 N where they do not (Kaplan et al.
2020, https://arxiv.org/abs/2001.08361, section 2.1), and the attention's 12 l t^2 d beside them
(Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B; causal attention counts
whole, as there). What rematerialisation or a loss in chunks computes again is not counted. Origins
are followed forwards alone: a product whose gradient is stopped later counts as if it were not.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from alm_jax.training.perf.product_flops import valid_positions


@dataclasses.dataclass(frozen=True)
class _Origin:
    """Where a value comes from: whether parameters, and trained ones, have a part in it."""

    params: bool = False
    trained: bool = False

    def __or__(self, other: '_Origin') -> '_Origin':
        return _Origin(self.params or other.params, self.trained or other.trained)


@dataclasses.dataclass
class ModelFlops:
    """Of one step over the global batch.

    Attributes:
      model: of products in which parameters have a part.
      front_end: of those that see nothing but the batch, such as a mel filter bank.
      uncounted: while loops, whose bodies are counted once for want of a trip count, and kernels
        that declare no estimate.
    """

    model: float = 0.0
    front_end: float = 0.0
    uncounted: int = 0

    def add(self, other: 'ModelFlops', times: float = 1) -> None:
        """Adds ``times`` those of another."""
        self.model += times * other.model
        self.front_end += times * other.front_end
        self.uncounted += other.uncounted


def of_step(task: Any, optimizer: Any, state: Any, batch: Any) -> ModelFlops:
    """The FLOPs of one training step over the global batch.

    Args:
      task: see ``step.make_train_step``.
      optimizer: tells what is trained.
      state, batch: those of the step; arrays or their shapes.
    """

    def loss(trained, kept, batch, rng):
        frozen, extra = kept
        return task.loss(optimizer.merge(trained, frozen), extra, batch, rng)[0]

    rng = jax.eval_shape(lambda: jax.random.key(0))
    trained, frozen = optimizer.split(state.params)
    return count(loss, trained, (frozen, state.extra), batch, rng)


def count(loss: Callable[..., Any], trained: Any, frozen: Any, *others: Any) -> ModelFlops:
    """The FLOPs of ``loss`` and of its gradient with respect to ``trained``.

    Args:
      loss: ``loss(trained, frozen, *others)``.
      trained, frozen: trees of parameters; arrays or their shapes.
      *others: what else it takes.
    """
    traced = jax.make_jaxpr(loss)(trained, frozen, *others).jaxpr
    origins = [
        origin
        for tree, origin in (
            (trained, _Origin(True, True)),
            (frozen, _Origin(True, False)),
            (others, _Origin()),
        )
        for _ in jax.tree.leaves(tree)
    ]
    total = ModelFlops()
    _walk(traced, origins, total)
    return total


def _walk(jaxpr: Any, inputs: Sequence[_Origin], total: ModelFlops) -> list[_Origin]:
    """Adds the FLOPs of ``jaxpr``; the origins of its results."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def origin(atom):
        return _Origin() if hasattr(atom, 'val') else known.get(atom, _Origin())

    for equation in jaxpr.eqns:
        found = [origin(atom) for atom in equation.invars]
        results = _equation(equation, found, total)
        for variable, result in zip(equation.outvars, results, strict=True):
            differentiable = jnp.issubdtype(getattr(variable.aval, 'dtype', jnp.int32), jnp.inexact)
            known[variable] = result if differentiable else _Origin(result.params, False)
    return [origin(atom) for atom in jaxpr.outvars]


def _equation(equation: Any, inputs: list[_Origin], total: ModelFlops) -> list[_Origin]:
    name, options = equation.primitive.name, equation.params
    joined = _Origin(any(i.params for i in inputs), any(i.trained for i in inputs))
    everywhere = [joined] * len(equation.outvars)
    if name in ('dot_general', 'conv_general_dilated'):
        flops = _dot(equation) if name == 'dot_general' else _convolution(equation)
        _book(total, flops, inputs[:2], joined)
        return everywhere
    if name == 'stop_gradient':
        return [_Origin(joined.params, False)] * len(equation.outvars)
    if name == 'scan':
        return _scan(options, inputs, total)
    if name == 'while':
        return _while(options, inputs, total, everywhere)
    if options.get('branches_platforms', [0])[-1] is None:
        # Forms for different backends; the default one is the mathematics without padding.
        return _walk(options['branches'][-1].jaxpr, inputs[1:], total)
    if name == 'cond':
        branches = [ModelFlops() for _ in options['branches']]
        found = [
            _walk(branch.jaxpr, inputs[1:], flops)
            for branch, flops in zip(options['branches'], branches)
        ]
        total.add(max(branches, key=lambda flops: flops.model))
        return [_either(results) for results in zip(*found)]
    if name == 'pallas_call':
        estimate = options.get('cost_estimate')
        total.uncounted += estimate is None
        _book(total, estimate.flops if estimate else 0, [joined], joined)
        return everywhere
    inner = _inner(options)
    if inner is None or len(inner.invars) != len(inputs):
        return everywhere
    parts = ModelFlops()
    results = _walk(inner, inputs, parts)
    total.add(parts, _shards(options) if name == 'shard_map' else 1)
    return results if len(results) == len(everywhere) else everywhere


def _book(total: ModelFlops, flops: float, sides: list[_Origin], joined: _Origin) -> None:
    times = 1 + sum(side.trained for side in sides)
    if joined.params:
        total.model += times * flops
    else:
        total.front_end += flops


def _either(origins: Sequence[_Origin]) -> _Origin:
    return _Origin(any(o.params for o in origins), any(o.trained for o in origins))


def _scan(options: Any, inputs: list[_Origin], total: ModelFlops) -> list[_Origin]:
    consts, carried = options['num_consts'], options['num_carry']
    body = options['jaxpr'].jaxpr
    while True:  # until what goes round the loop has the origins of every round
        parts = ModelFlops()
        results = _walk(body, inputs, parts)
        before = inputs[consts : consts + carried]
        after = [one | other for one, other in zip(before, results)]
        if after == before:
            break
        inputs = [*inputs[:consts], *after, *inputs[consts + carried :]]
    total.add(parts, options['length'])
    return results


def _while(options: Any, inputs: list[_Origin], total: ModelFlops, everywhere: list) -> list:
    start = options['cond_nconsts']
    parts = ModelFlops()
    _walk(options['body_jaxpr'].jaxpr, inputs[start:], parts)
    if parts.model or parts.front_end:
        parts.uncounted += 1
    total.add(parts)
    return everywhere


def _inner(options: Any) -> Any:
    """The jaxpr of a call: jit, remat, custom derivatives, shard_map."""
    for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
        if key in options:
            return getattr(options[key], 'jaxpr', options[key])
    return None


def _shards(options: Any) -> int:
    """Devices among which a shard_map divides its inputs; on the others the work is repeated."""
    axes = set()
    for spec in options['in_specs']:
        for entry in spec:
            axes |= set(entry) if isinstance(entry, tuple) else {entry} - {None}
    return math.prod(options['mesh'].shape[axis] for axis in axes)


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)


def _convolution(equation: Any) -> float:
    """Of the multiply-adds that meet an element of the input, not its padding."""
    options = equation.params
    numbers: lax.ConvDimensionNumbers = options['dimension_numbers']
    inputs, kernel = (atom.aval.shape for atom in equation.invars[:2])
    output = equation.outvars[0].aval.shape
    rows = inputs[numbers.lhs_spec[0]] // options['batch_group_count']
    features = kernel[numbers.rhs_spec[0]] * kernel[numbers.rhs_spec[1]]
    positions = 1
    for axis, (before, _) in enumerate(options['padding'], start=2):
        positions *= valid_positions(
            inputs[numbers.lhs_spec[axis]],
            kernel[numbers.rhs_spec[axis]],
            output[numbers.out_spec[axis]],
            options['window_strides'][axis - 2],
            before,
            options['lhs_dilation'][axis - 2],
            options['rhs_dilation'][axis - 2],
        )
    return 2.0 * rows * features * positions
