"""`QuantizedLinear` and `quantize`: linear layers with 8-bit or 4-bit weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol, TypeVar

from maxmod.errors import ArgumentError, MaxmodError, OperandError, did_you_mean
from maxmod.interpreters.lazy import lazy
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module
from maxmod.nn.places import Owner, Place, descendants_of, modules_in
from maxmod.ops.weight_quantization import quantize_weight, quantized_linear
from maxmod.tensor import Tensor
from maxmod.values.dim import Dim, StaticDim


class QuantizedLinear(Module[[Tensor], Tensor]):
    """y = x @ w.T + bias over the last axis, where w is rounded to 8 or 4 bits.

    The state has two tensors in place of a floating-point weight, which save and load like any
    others; `F.quantize_weight` documents their format.

    Args:
        weight: Codes: int8 [out_dim, in_dim], or uint8 [out_dim, in_dim / 2] with two a byte.
        scales: float32 [out_dim, 1], or float16 [out_dim, in_dim / group_size].
        bias: Tensor [out_dim], or the number 0.

    Returns:
        Calling it with x [..., in_dim] gives [..., out_dim] in the dtype of x.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import Linear, QuantizedLinear
        >>> layer = QuantizedLinear.of(Linear(64, 10), "int4")
        >>> layer(Tensor.ones([2, 64])).shape == [2, 10]
        True
        >>> [name for name, _ in layer.parameters]
        ['weight', 'scales', 'bias']
    """

    weight: Tensor
    scales: Tensor
    bias: Tensor | Literal[0]

    def __init__(self, weight: Tensor, scales: Tensor, bias: Tensor | Literal[0] = 0) -> None:
        self.weight = weight
        self.scales = scales
        self.bias = bias

    @classmethod
    def of(cls, linear: Linear, scheme: str, group_size: int | None = None) -> QuantizedLinear:
        """Returns a layer with the weight of another one, rounded; see `F.quantize_weight`.

        A weight without data (see `F.lazy`) is rounded when its data is made. The bias is shared.

        Args:
            linear: The layer; it is not changed.
            scheme: `"int8"` or `"int4"`.
            group_size: For int4: a multiple of 32 that divides in_dim; 32 by default.

        Returns:
            The new layer.

        Raises:
            ValueError: If the weight holds NaN or infinity, or does not fit the groups.

        Example:
            >>> from maxmod.nn import Linear, QuantizedLinear
            >>> QuantizedLinear.of(Linear(64, 10), "int4", group_size=64).scales.shape
            [Dim(10), Dim(1)]
        """
        codes, scales = quantize_weight(linear.weight, scheme, group_size)
        made = cls(codes, scales, linear.bias)
        others = ("weight", "bias")
        vars(made).update((k, v) for k, v in vars(linear).items() if k not in others)
        return made

    @property
    def in_dim(self) -> Dim:
        """Size of the last axis of the input."""
        return StaticDim(int(self.weight.shape[1]) * (2 if self.scheme == "int4" else 1))

    @property
    def out_dim(self) -> Dim:
        """Size of the last axis of the result."""
        return self.weight.shape[0]

    @property
    def scheme(self) -> str:
        """`"int8"` or `"int4"`."""
        return "int8" if self.weight.dtype.is_signed_integral() else "int4"

    @property
    def group_size(self) -> int | None:
        """How many weights share a scale; None for int8, with one scale per row."""
        return None if self.scheme == "int8" else int(self.in_dim) // int(self.scales.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """Applies the map to the last axis of x.

        Args:
            x: Tensor [..., in_dim] of a float dtype.

        Returns:
            [..., out_dim] in the dtype of x.

        Raises:
            ValueError: If the last axis has another size, or the dtype is not a float.
        """
        product = quantized_linear(x, self.weight, self.scales)
        return product + self.bias if isinstance(self.bias, Tensor) else product

    def __rich_repr__(self) -> Iterable[object]:
        yield "in_dim", self.in_dim
        yield "out_dim", self.out_dim
        yield "scheme", self.scheme
        yield "group_size", self.group_size, None
        yield "bias", isinstance(self.bias, Tensor), True


class Pretrained(Protocol):
    """A pretrained model around a module, such as `load_model` returns."""

    @property
    def module(self) -> Module: ...

    def forget_compiled(self) -> None: ...


M = TypeVar("M", bound="Module | Pretrained")


def quantize(
    model: M, scheme: str, *, group_size: int | None = None, skip: str | Iterable[str] = ()
) -> M:
    """Rounds the weights of the linear layers of a model to 8 or 4 bits, in place.

    Every `Linear` in the model is replaced by a `QuantizedLinear`; embeddings, norms and subclasses
    of `Linear` are left as they are. A head that is tied to an embedding is rounded, the embedding
    is not: it keeps its floats, of which a token reads one row. Either all layers are replaced or
    none. Layers that are already quantised are skipped, so a second call can use another scheme
    for the rest:

        quantize(model, "int4", skip="lm_head")
        quantize(model, "int8")

    Compiled models keep the weights that they were compiled with: compile again after this.

    Args:
        model: A module, or what `load_model` returns.
        scheme: `"int8"`, one scale for each output; or `"int4"`, one for each group of weights.
        group_size: For int4: a multiple of 32 that divides the inputs of each layer; 32 by default.
        skip: Qualified names of layers to leave alone, one or several; `*` matches any characters.

    Returns:
        The model.

    Raises:
        ValueError: If there is no layer to quantise, a name of `skip` matches none, a weight holds
            NaN or infinity or does not fit the groups; the message names it.

    Example:
        >>> import maxmod
        >>> from maxmod.nn import Linear, Sequential
        >>> maxmod.quantize(Sequential(Linear(64, 32), Linear(32, 8)), "int8", skip="1")
        Sequential(
            QuantizedLinear(in_dim=Dim(64), out_dim=Dim(32), scheme='int8'),
            Linear(in_dim=Dim(32), out_dim=Dim(8))
        )
    """
    module: Any = model if isinstance(model, Module) else getattr(model, "module", model)
    layers = linear_layers(module, skip)
    made: dict[int, QuantizedLinear] = {}
    tied: dict[int, QuantizedLinear] = {}
    for path, _, linear in layers:
        if id(linear) in made:
            continue
        same = tied.get(id(linear.weight))
        try:
            with lazy():  # types are checked for all before the first weight is looked at
                layer = QuantizedLinear.of(linear, scheme, group_size)
        except MaxmodError as error:
            raise type(error)(f"quantize: {path}.weight: {error}") from None
        if same is not None:
            layer.weight, layer.scales = same.weight, same.scales
        made[id(linear)] = tied[id(linear.weight)] = layer
    for path, _, linear in layers:
        if linear.weight.real:
            try:
                made[id(linear)].weight.materialize()
                made[id(linear)].scales.materialize()
            except MaxmodError as error:
                raise type(error)(f"quantize: {path}.weight: {error}") from None
    for _, place, linear in layers:
        _replace(place, made[id(linear)])
    if not isinstance(model, Module):
        model.forget_compiled()
    return model


def linear_layers(
    module: Module, skip: str | Iterable[str] = ()
) -> list[tuple[str, Place, Linear]]:
    """Returns (qualified name, place, layer) of the layers that `quantize` replaces.

    Raises:
        ValueError: If there is none, or a name of `skip` matches none.
    """
    if not isinstance(module, Module):
        raise OperandError(f"quantize: expected a module, got {type(module).__name__}.")
    list(descendants_of(module, searched=True))  # refuses a module that contains itself
    found = list(_linears(module, ""))
    names = [path for path, _, _ in found]
    skipped: set[str] = set()
    for pattern in (skip,) if isinstance(skip, str) else skip:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            raise ArgumentError(
                f"quantize: skip: {pattern!r} matches no linear layer."
                f"{did_you_mean(pattern, names)}"
            )
        skipped.update(matches)
    chosen = [layer for layer in found if layer[0] not in skipped]
    if not chosen:
        hint = " Hint: QuantizedLinear.of(linear, scheme)." if type(module) is Linear else ""
        raise ArgumentError(
            f"quantize: there is no linear layer to quantise in {type(module).__name__}.{hint}"
        )
    return chosen


def _linears(
    owner: Owner, prefix: str, above: tuple[Owner, ...] = ()
) -> Iterator[tuple[str, Place, Linear]]:
    above = (*above, owner)
    for name, attribute, keys, child, _ in modules_in(owner):
        path = prefix + name
        if type(child) is Linear:  # a subclass may use its weight in other ways
            yield path, Place(owner, attribute, path, keys), child
        elif not any(child is other for other in above):
            yield from _linears(child, f"{path}.", above)


def _replace(place: Place, child: Module) -> None:
    if isinstance(place.owner, list) and place.attribute.isdecimal():
        place.owner[int(place.attribute)] = child
    else:
        place.write(child, force=True)
