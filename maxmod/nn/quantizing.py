"""`quantize`: rounds the linear layers of a model, and the embedding that a head is tied to."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from maxmod.errors import ArgumentError, MaxmodError, OperandError, did_you_mean
from maxmod.interpreters.lazy import lazy
from maxmod.nn.embedding import Embedding
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module
from maxmod.nn.places import Owner, Place, descendants_of, modules_in
from maxmod.nn.quantized_embedding import QuantizedEmbedding
from maxmod.nn.quantized_linear import QuantizedLinear, format_of

HEAD = "lm_head"  # the name of the layer from hidden states to logits in models of Hugging Face


class Pretrained(Protocol):
    """A pretrained model around a module, such as `load_model` returns."""

    @property
    def module(self) -> Module: ...

    def forget_compiled(self) -> None: ...


M = TypeVar("M", bound="Module | Pretrained")


class Format(NamedTuple):
    """How a weight is stored: a scheme of `F.quantize_weight`, and its group size."""

    scheme: str
    group_size: int | None


def quantize(
    model: M,
    scheme: str,
    *,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    head: str = "int8",
) -> M:
    """Rounds the weights of the linear layers of a model to 8 or 4 bits, in place.

    Every `Linear` in the model is replaced by a `QuantizedLinear`; embeddings, norms and subclasses
    of `Linear` are left as they are. The head, a layer named `lm_head` or tied to an embedding, has
    8 bits also where the others have 4: it decides among all tokens, and errors of it are not
    evened out by later layers. An embedding that is tied to a head of 8 bits becomes a
    `QuantizedEmbedding` with the same codes. Either all layers are replaced or none. Layers that
    are already quantised are skipped, so a second call can use another scheme for the rest:

        quantize(model, "int4", skip="layers.0.*")
        quantize(model, "int8")

    Compiled models keep the weights that they were compiled with: compile again after this.

    Args:
        model: A module, or what `load_model` returns.
        scheme: `"int8"`, one scale for each output; or `"int4"`, a scale and an offset for each
            group of weights, found by a search.
        group_size: For int4: a multiple of 32 that divides the inputs of each layer; 32 by default.
        skip: Qualified names of layers to leave alone, one or several; `*` matches any characters.
        head: The scheme of the head where `scheme` is int4: `"int8"` or `"int4"`. With int4, an
            embedding that it is tied to keeps its floats.

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
    replace_layers(module, formats_of(module, scheme, group_size, skip, head))
    if not isinstance(model, Module):
        model.forget_compiled()
    return model


def formats_of(
    module: Module,
    scheme: str,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    head: str = "int8",
) -> dict[str, Format]:
    """Returns how each layer that `quantize` replaces is to be stored, by qualified names."""
    layers = linear_layers(module, skip)
    chosen = Format(format_of("quantize", scheme), group_size)
    of_head = Format(format_of("quantize: head", head), group_size if head == "int4" else None)
    heads = _heads(module, layers) if scheme == "int4" else ()
    return {path: of_head if path in heads else chosen for path, _, _ in layers}


def _heads(module: Module, layers: list[tuple[str, Place, Linear]]) -> set[str]:
    """Names of layers that are called a head, or share a weight with an embedding or a head."""
    tied = {id(place.embedding.weight) for place in _embeddings(module)}
    tied |= {id(layer.weight) for path, _, layer in layers if path.split(".")[-1] == HEAD}
    return {path for path, _, layer in layers if id(layer.weight) in tied}


def replace_layers(
    module: Module, formats: Mapping[str, Format], embeddings: Collection[str] | None = None
) -> None:
    """Replaces linear layers, and embeddings that share a weight with one of 8 bits.

    Args:
        module: The module.
        formats: How each layer is stored; those that are not named are left alone.
        embeddings: Names of the only embeddings to replace; None for all that can be.
    """
    layers = [layer for layer in linear_layers(module) if layer[0] in formats]
    made: dict[int, QuantizedLinear] = {}
    tied: dict[tuple[int, Format], QuantizedLinear] = {}
    for path, _, linear in layers:
        if id(linear) in made:
            continue
        key = (id(linear.weight), formats[path])
        same = tied.get(key)
        try:
            with lazy():  # types are checked for all before the first weight is looked at
                layer = QuantizedLinear._rounded(linear, *formats[path])
        except MaxmodError as error:
            raise type(error)(f"quantize: {path}.weight: {error}") from None
        if same is not None:
            layer.weight, layer.scales = same.weight, same.scales
            layer.offsets, layer.units = same.offsets, same.units
        made[id(linear)] = tied[key] = layer
    for path, _, linear in layers:
        if linear.weight.real:
            try:
                for tensor in made[id(linear)].tensors():
                    tensor.materialize()
            except MaxmodError as error:
                raise type(error)(f"quantize: {path}.weight: {error}") from None
    tables = {weight: layer for (weight, kind), layer in tied.items() if kind.scheme == "int8"}
    for name, place, embedding in _embeddings(module):
        layer = tables.get(id(embedding.weight))
        if layer is not None and (embeddings is None or name in embeddings):
            table = QuantizedEmbedding(layer.weight, layer.scales, embedding.weight.dtype)
            _replace(place, table)
    for _, place, linear in layers:
        _replace(place, made[id(linear)])


class _Table(NamedTuple):
    """An embedding and where it is."""

    name: str
    place: Place
    embedding: Embedding


def _embeddings(module: Module) -> list[_Table]:
    """The embeddings of vectors; not subclasses, which may use the weight in other ways."""
    return [
        _Table(path, place, child)
        for path, place, child in _found(module, "", Embedding)
        if isinstance(child, Embedding) and child.weight.rank == 2
    ]


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
    found = [
        (path, place, child)
        for path, place, child in _found(module, "", Linear)
        if isinstance(child, Linear)
    ]
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


def _found(
    owner: Owner, prefix: str, kind: type[Module], above: tuple[Owner, ...] = ()
) -> Iterator[tuple[str, Place, Module]]:
    above = (*above, owner)
    for name, attribute, keys, child, _ in modules_in(owner):
        path = prefix + name
        if type(child) is kind:  # a subclass may use its weight in other ways
            yield path, Place(owner, attribute, path, keys), child
        elif not any(child is other for other in above):
            yield from _found(child, f"{path}.", kind, above)


def _replace(place: Place, child: Module) -> None:
    if isinstance(place.owner, list) and place.attribute.isdecimal():
        place.owner[int(place.attribute)] = child
    else:
        place.write(child, force=True)
