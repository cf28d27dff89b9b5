"""`quantize`: the linear layers of a model with 8-bit or 4-bit weights."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

from maxmod.errors import ArgumentError, MaxmodError, OperandError, did_you_mean
from maxmod.interpreters.lazy import lazy
from maxmod.nn.calibrating import Moments, compensate, moments_of
from maxmod.nn.embedding import Embedding
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module
from maxmod.nn.places import Owner, Place, descendants_of, modules_in
from maxmod.nn.quantized_embedding import QuantizedEmbedding
from maxmod.nn.quantized_linear import QuantizedLinear
from maxmod.ops.weight_quantization import ROWS, SCHEMES


class Pretrained(Protocol):
    """A pretrained model around a module, such as `load_model` returns."""

    @property
    def module(self) -> Module: ...

    def forget_compiled(self) -> None: ...


M = TypeVar("M", bound="Module | Pretrained")
T = TypeVar("T", bound=Module)
HEAD = "lm_head"
SENSITIVE = "sensitive_layers"  # the attribute of a module
Format = tuple[str, int | None]  # scheme and group size
Layer = tuple[str, Place, Linear]  # with its qualified name


def quantize(
    model: M,
    scheme: str,
    *,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    head: str = "int8",
    sensitive: str = "int8",
    calibration: Iterable[object] | None = None,
) -> M:
    """Rounds the weights of the linear layers of a model to 8 or 4 bits, in place.

    Every `Linear` in the model is replaced by a `QuantizedLinear`; embeddings, norms and subclasses
    of `Linear` are left as they are. The head, which chooses among all tokens, has 8 bits; it is a
    layer named `lm_head` or tied to an embedding. That embedding becomes a `QuantizedEmbedding`,
    which has the codes of the head in common with it. Layers that lose most by 4 bits have 8 bits
    as well: those that a module in the model names in its attribute `sensitive_layers`, a
    tuple of names from that module, in which `*` matches any characters. The encoder `Bert` names
    half of its weights; decoders name none. Either all layers are replaced or none.
    Layers that are already quantised are skipped, so a second call can use another scheme for the
    rest:

        quantize(model, "int4", skip="lm_head")
        quantize(model, "int8")

    Compiled models keep the weights that they were compiled with: compile again after this.

    Args:
        model: A module, or what `load_model` returns.
        scheme: `"int8"`, a scale for each group of weights; or `"int4"`, a scale and a minimum
            (`"int4_symmetric"`: a scale alone, as earlier versions).
        group_size: A multiple of 32 that divides the inputs of each layer. By default 32 for int4,
            and for int8 64, 32 or all inputs, the first that divides them; -1 is all, for int8.
            In a model of 4 bits, a head of 8 has one scale for each row, and other layers of 8 bits
            have their default.
        skip: Qualified names of layers to leave alone, one or several; `*` matches any characters.
        head: The scheme of the head, whatever `scheme` is. With 4 bits, an embedding that is tied
            to it keeps its floats.
        sensitive: The scheme of layers that lose most by 4 bits, where `scheme` is one of 4 bits.
        calibration: Texts like those that the model is for, some thousands of words, which it reads
            op by op before it is rounded; for a module, a list with its argument, or a tuple of
            arguments, of each call. Codes are then chosen so that their errors make up for each
            other on what the layers saw, which needs time and, for each layer, memory for a matrix
            of its inputs by its inputs. Layers that saw nothing, or have a weight in common with
            others or an embedding, are rounded as without it.

    Returns:
        The model.

    Raises:
        ValueError: If there is no layer to quantise, a name of `skip` matches none, a weight holds
            NaN or infinity or does not fit the groups; the message names it.
        TypeError: If the `sensitive_layers` of a module are no names, or `calibration` holds other
            things.

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
    formats = formats_of(module, scheme, group_size, skip, head, sensitive)
    moments: Moments = {}
    if calibration is not None:
        moments = moments_of(model, _untied(module, formats), calibration)
    replace_layers(module, formats, moments=moments)
    if not isinstance(model, Module):
        model.forget_compiled()
    return model


def formats_of(
    module: Module,
    scheme: str,
    group_size: int | None,
    skip: str | Iterable[str],
    head: str = "int8",
    sensitive: str = "int8",
) -> dict[str, Format]:
    """Returns how `quantize` rounds each layer, by its name; see there.

    Raises:
        ValueError: If there is none, a name of `skip` matches none, or a scheme is not known.
    """
    layers = linear_layers(module, skip)
    for name, given in (("head", head), ("sensitive", sensitive)):
        if given not in SCHEMES:
            raise ArgumentError(f"quantize: {name}: expected one of {SCHEMES}, got {given!r}.")
    if scheme == "int8" and sensitive != "int8":
        raise ArgumentError(
            f"quantize: sensitive: {sensitive!r}: layers that lose most by 4 bits would have fewer "
            "than the others, which have 8. Hint: scheme='int4', or leave it out."
        )
    own: dict[int, str] = {}  # by the weight: layers with one in common are rounded alike
    if scheme != "int8":
        own = dict.fromkeys(_sensitive(module), sensitive)
    heads = _heads(module, layers)
    own |= dict.fromkeys(heads, head)
    schemes = {path: own.get(id(linear.weight), scheme) for path, _, linear in layers}
    made: dict[str, Format] = {}
    for path, _, linear in layers:
        own_scheme = schemes[path]
        if own_scheme == "int8" and scheme != "int8":
            # A head is large: scales of groups would cost a small model more than they give.
            made[path] = (own_scheme, ROWS if id(linear.weight) in heads else None)
        else:
            is_other = group_size == ROWS and own_scheme != "int8"
            made[path] = (own_scheme, None if is_other else group_size)
    return made


def _heads(module: Module, layers: Sequence[Layer]) -> set[int]:
    """The ids of the weights of heads."""
    tables = tied_embeddings(module)
    return {
        id(linear.weight)
        for path, _, linear in layers
        if path.rpartition(".")[2] == HEAD or id(linear.weight) in tables
    }


def _sensitive(module: Module) -> set[int]:
    """The ids of the weights of layers that the module, or one inside, names as sensitive."""
    found: set[int] = set()
    for owner in (module, *(child for _, _, child in descendants_of(module, searched=True))):
        patterns = _patterns(owner)
        for path, _, linear in _linears(owner, "") if patterns else ():
            if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
                found.add(id(linear.weight))
    return found


def _patterns(owner: Module) -> tuple[str, ...]:
    """The names that a module gives; one that matches nothing may be that of a layer done before.

    Raises:
        TypeError: If they are no names.
    """
    given: object = getattr(owner, SENSITIVE, ())
    names = (given,) if isinstance(given, str) else given
    if isinstance(names, (tuple, list)):
        found = [name for name in cast("Sequence[object]", names) if isinstance(name, str)]
        if len(found) == len(cast("Sequence[object]", names)):
            return tuple(found)
    raise OperandError(
        f"quantize: {SENSITIVE} of {type(owner).__name__}: expected a tuple of names of linear "
        f"layers, got {type(names).__name__}: {str(names)[:80]}."
    )


def _untied(module: Module, formats: Mapping[str, Format]) -> dict[str, Linear]:
    """The layers whose codes are theirs alone: an embedding reads each code by itself."""
    layers = {id(linear): (path, linear) for path, _, linear in _linears(module, "")}
    users = Counter(id(linear.weight) for _, linear in layers.values())
    shared = {*tied_embeddings(module), *(key for key, count in users.items() if count > 1)}
    return {
        path: linear
        for path, linear in layers.values()
        if path in formats and id(linear.weight) not in shared
    }


def replace_layers(
    module: Module,
    formats: Mapping[str, Format],
    tables: Container[str] | None = None,
    moments: Moments | None = None,
) -> None:
    """Replaces layers by rounded ones: all, or none if one cannot be.

    Args:
        module: The module.
        formats: How to round each of its linear layers, by name; others are left alone.
        tables: Names of embeddings that may have the codes of a head of 8 bits; None for all.
        moments: Of the inputs of layers; see `calibrating`.
    """
    layers = [layer for layer in _linears(module, "") if layer[0] in formats]
    embeddings = tied_embeddings(module)
    made = _rounded(layers, formats)
    for _, _, linear in layers:
        if moments and id(linear) in moments:
            compensate(made[id(linear)], linear, moments.pop(id(linear)))
    for _, place, linear in layers:
        replace_at(place, made[id(linear)])
    for _, _, linear in layers:
        layer = made[id(linear)]
        for place, table in embeddings.pop(id(linear.weight), ()):
            if layer.scheme == "int8" and (tables is None or place.name in tables):
                dtype = table.weight.dtype
                replace_at(place, QuantizedEmbedding(layer.weight, layer.scales, dtype))


def _rounded(
    layers: Sequence[tuple[str, Place, Linear]], formats: Mapping[str, Format]
) -> dict[int, QuantizedLinear]:
    """Returns a rounded layer for each, by the id of the layer. Weights stay in common."""
    made: dict[int, QuantizedLinear] = {}
    tied: dict[int, QuantizedLinear] = {}
    for path, _, linear in layers:
        if id(linear) in made:
            continue
        same = tied.get(id(linear.weight))
        try:
            with lazy():  # types are checked for all before the first weight is looked at
                layer = QuantizedLinear.of(linear, *formats[path])
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
    return made


def tied_embeddings(module: Module) -> dict[int, list[tuple[Place, Embedding]]]:
    """Returns the embeddings whose weight is that of a linear layer, by the id of the weight."""
    weights = {id(linear.weight) for _, _, linear in _linears(module, "")}
    found: dict[int, list[tuple[Place, Embedding]]] = {}
    for place, child in _of_type(module, "", Embedding):
        if id(child.weight) in weights:
            found.setdefault(id(child.weight), []).append((place, child))
    return found


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


def _linears(owner: Owner, prefix: str) -> Iterator[tuple[str, Place, Linear]]:
    # a subclass may use its weight in other ways
    for place, child in _of_type(owner, prefix, Linear):
        yield place.name, place, child


def _of_type(
    owner: Owner, prefix: str, kind: type[T], above: tuple[Owner, ...] = ()
) -> Iterator[tuple[Place, T]]:
    """Yields the modules of exactly this type, each at every place where it is."""
    above = (*above, owner)
    for name, attribute, keys, child, _ in modules_in(owner):
        path = prefix + name
        if type(child) is kind:
            yield Place(owner, attribute, path, keys), child
        elif not any(child is other for other in above):
            yield from _of_type(child, f"{path}.", kind, above)


def replace_at(place: Place, child: Module) -> None:
    """Puts a module in the place of another one, also into a list of modules."""
    if isinstance(place.owner, list) and place.attribute.isdecimal():
        place.owner[int(place.attribute)] = child
    else:
        place.write(child, force=True)
