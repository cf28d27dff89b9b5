"""What inputs the linear layers of a module have, for rounding that makes errors cancel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, OperandError
from maxmod.nn.hooks import ACTIVE
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module
from maxmod.nn.quantized_linear import QuantizedLinear
from maxmod.ops.compensated_codes import compensated
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray

Moments = dict[int, HostArray]  # by the id of a layer: float32 [in, in], sums of x[i] * x[j]


class _Watch:
    """Adds up the products of the inputs of layers: a hook that calls of modules run.

    Rows wait until there are a quarter as many as columns: for the few of one text, adding the
    products would take longer than multiplying.
    """

    def __init__(self, layers: Iterable[Linear]) -> None:
        self._waiting: dict[int, list[HostArray]] = {id(layer): [] for layer in layers}
        self._moments: Moments = {}

    def __call__(
        self, module: object, args: Sequence[object], kwargs: Mapping[str, object], result: object
    ) -> None:
        waiting = self._waiting.get(id(module))
        if waiting is None:
            return
        (x,) = (*args, *kwargs.values())
        assert isinstance(x, Tensor)
        width = int(x.shape[-1])
        waiting.append(x.cast(DType.float32).to_numpy().reshape(-1, width))
        if 4 * sum(map(len, waiting)) >= width:
            self._add(id(module))

    def moments(self) -> Moments:
        """Returns the sums of all calls so far, for each layer that was called."""
        for layer, waiting in self._waiting.items():
            if waiting:
                self._add(layer)
        return self._moments

    def _add(self, layer: int) -> None:
        rows = np.concatenate(self._waiting[layer])
        self._waiting[layer].clear()
        found = rows.T @ rows
        if layer in self._moments:
            self._moments[layer] += found
        else:
            self._moments[layer] = found

    def __enter__(self) -> _Watch:
        ACTIVE.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        ACTIVE.remove(self)


def moments_of(model: object, layers: Mapping[str, Linear], calibration: Any) -> Moments:
    """Runs a model on texts, or a module on inputs, and returns what its layers saw.

    Args:
        model: The model or module.
        layers: The layers to watch, by name.
        calibration: Texts for a model that reads them; for a module its argument, or a tuple of
            arguments, of each call.

    Raises:
        ValueError: If there is no text or call, a value is NaN or infinite, or the model reads no
            texts.
        TypeError: If they are of another type.
    """
    run = _call if isinstance(model, Module) else _read
    with _Watch(layers.values()) as watch:
        run(model, calibration)
    moments = watch.moments()
    for name, layer in layers.items():
        if id(layer) in moments and not np.isfinite(moments[id(layer)]).all():
            raise ArgumentError(
                f"quantize: calibration: the inputs of {name} are not finite, or too large."
            )
    return moments


def compensate(rounded: QuantizedLinear, linear: Linear, moments: HostArray) -> None:
    """Chooses the codes of a rounded layer again, for inputs with these moments."""
    weight = linear.weight.cast(DType.float32).to_numpy()
    scales = rounded.scales
    scales = scales.cast(DType.float32) if scales.dtype is DType.bfloat16 else scales
    codes = compensated(weight, rounded.weight.to_numpy(), scales.to_numpy(), moments)
    rounded.weight = Tensor(codes, device=rounded.weight.device)


def _read(model: object, texts: Any) -> None:
    run: Any = getattr(model, "run_texts", None)
    if run is None:
        raise ArgumentError(
            f"quantize: calibration: {type(model).__name__} reads no texts. Hint: give its module "
            "and tensors: quantize(model.module, ..., calibration=[x])."
        )
    found: list[Any] = [] if isinstance(texts, (str, bytes, Mapping)) else _listed(texts)
    for text in found:
        if not isinstance(text, str):
            raise OperandError(
                f"quantize: calibration: expected texts (str), got {type(text).__name__}."
            )
    if not any(text.strip() for text in found):
        got = f", got one {type(texts).__name__}" if isinstance(texts, (str, bytes)) else ""
        raise ArgumentError(f"quantize: calibration: expected a list of texts{got}.")
    run([text for text in found if text.strip()])


def _call(module: Any, inputs: Any) -> None:
    calls = [] if isinstance(inputs, (str, bytes, Mapping, Tensor)) else _listed(inputs)
    if not calls:
        raise ArgumentError(
            "quantize: calibration: expected a list with the argument of each call of the module, "
            f"or a tuple of arguments; got {type(inputs).__name__}."
        )
    for call in calls:
        arguments = call if isinstance(call, tuple) else (call,)
        if not all(isinstance(argument, Tensor) for argument in arguments):
            kinds = ", ".join(type(argument).__name__ for argument in arguments)
            raise OperandError(
                f"quantize: calibration: a module is called with tensors, got {kinds}. Hint: texts "
                "are for what load_model and load_encoder return."
            )
        module(*arguments)


def _listed(given: Any) -> list[Any]:
    try:
        return list(given)
    except TypeError:
        raise OperandError(
            f"quantize: calibration: expected a list, got {type(given).__name__}."
        ) from None
