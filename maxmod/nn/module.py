"""`Module`: a plain Python object that holds tensors and other modules, and can be called.

Nothing is registered: every query looks at the attributes that the object has at that time.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Self, dataclass_transform, overload

from maxmod.backends.devices import CPU, Device, device_of
from maxmod.errors import ForwardError, OperandError
from maxmod.nn.familiar import FamiliarNames, Named
from maxmod.nn.hooks import ACTIVE
from maxmod.nn.loading import moved, values_of_lookup, values_of_mapping
from maxmod.nn.moving import MOVING, one_move
from maxmod.nn.pinned import own_annotations, pinned_attributes
from maxmod.nn.places import (
    Owner,
    Place,
    by_name,
    contained,
    descendants_of,
    parameters_of,
    places_of,
    replace_all,
    tensors_in,
    warn_of_containers,
)
from maxmod.nn.pretty import pretty_repr
from maxmod.nn.summary import Summary, summarize
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.runtime.staging import StagedGraph, trace_function
from maxmod.tensor import Tensor, era
from maxmod.tensor.like import StateLike
from maxmod.values.device import DeviceLike, DeviceRef

# `Module` without arguments is `Module[..., Any]`; Python knows such defaults from 3.13 on.
if TYPE_CHECKING:
    from typing_extensions import ParamSpec, TypeVar

    P = ParamSpec("P", default=...)
    R = TypeVar("R", default=Any)
else:
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

# Where `device` is kept; the name must not collide with an attribute of a user's module.
_UNCHECKED = ("25.7", "26.1")  # versions of MAX whose load_state_dict compares no shapes
_DEVICE = "_module_device"


class Module(FamiliarNames, Owner, Generic[P, R]):
    """Base class of models and their parts.

    A subclass sets tensors and modules as attributes, usually in `__init__` (there is no need to
    call `super().__init__()`), and defines `forward` or `__call__`.

    - A local parameter is a `Tensor` attribute, a child is a `Module` attribute.
    - A qualified name joins attribute names with dots: `encoder.layers.0.weight`.
    - Parameters are listed with the module's own first, then those of each child, in the order in
      which attributes were first set.
    - Tensors and modules in a list, tuple or dict that an attribute holds are parameters too, named
      by their keys: `blocks.0.weight`. But they are neither local parameters nor children, and a
      `ModuleList` shows them in the repr. Other containers are not searched.
    - One tensor under several names is a tied parameter and stays one tensor through loading,
      moving, mapping and compiling.

    Example:
        >>> from maxmod import Module, Tensor
        >>> from maxmod.nn import Linear
        >>> class Classifier(Module[[Tensor], Tensor]):
        ...     def __init__(self, dim: int, classes: int) -> None:
        ...         self.head = Linear(dim, classes)
        ...     def forward(self, x: Tensor) -> Tensor:
        ...         return self.head(x)
        >>> [name for name, _ in Classifier(8, 3).parameters]
        ['head.weight', 'head.bias']
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Applies the module: calls `forward`."""
        result = self.forward(*args, **kwargs)
        for hook in ACTIVE:
            hook(self, args, kwargs, result)
        return result

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Computes the result; to be defined by the subclass (here or as `__call__`).

        Args:
            *args: Defined by the subclass.
            **kwargs: Defined by the subclass.

        Returns:
            Tensors, or tuples, lists and dicts of them, as the subclass defines.

        Raises:
            ForwardError: (a TypeError and NotImplementedError) If it is not defined.
        """
        raise ForwardError(
            f"{type(self).__name__} must implement forward() or __call__() to be called."
        )

    # ---- queries -----------------------------------------------------------------------------

    @property
    def local_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """Iterates over (attribute name, tensor) of this module alone."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                yield name, value

    @property
    def children(self) -> Named[Module]:
        """Iterates over (attribute name, module) of the modules directly on this one.

        Called, as in PyTorch, it iterates over the modules alone.

        Example:
            >>> from maxmod.nn import Linear, Sequential
            >>> [name for name, _ in Sequential(Linear(2, 3), Linear(3, 1)).children]
            ['0', '1']
        """
        values = list(vars(self).items())
        return Named((name, value) for name, value in values if isinstance(value, Module))

    @property
    def descendants(self) -> Iterable[tuple[str, Module]]:
        """Iterates over (qualified name, module) of children, their children and so on.

        Raises:
            ValueError: If a module contains itself.
        """
        return ((path, module) for path, _, module in descendants_of(self))

    @property
    def parameters(self) -> Named[Tensor]:
        """Iterates over (qualified name, tensor) of this module and all its descendants.

        Called, `model.parameters()`, it iterates over the tensors alone, as in PyTorch.

        A tied tensor appears once for each of its names. `dict(model.parameters)` is the state that
        `load_state_dict` and `weights.save_state` take.

        Raises:
            ValueError: If a module contains itself, or two parameters have the same qualified name.

        Example:
            >>> from maxmod.nn import Linear, Sequential
            >>> model = Sequential(Linear(2, 3), Linear(3, 1, bias=False))
            >>> {name: tensor.shape for name, tensor in model.parameters}
            {'0.weight': [Dim(3), Dim(2)], '0.bias': [Dim(3)], '1.weight': [Dim(1), Dim(3)]}
        """
        return Named((place.name, place.tensor) for place in _places(self))

    @property
    def device(self) -> Device:
        """The device of the last `to`, or the one assigned; else the first parameter's.

        Assigning a `Device`, `DeviceRef` or None records it and moves nothing.
        """
        recorded = vars(self).get(_DEVICE)
        if recorded is not None:
            return device_of(recorded)
        for _, tensor in self.parameters:
            return tensor.device
        return CPU()

    @device.setter
    def device(self, device: DeviceLike | None) -> None:
        vars(self)[_DEVICE] = None if device is None else DeviceRef.from_device(device)

    # ---- transforms --------------------------------------------------------------------------

    def apply_to_local_parameters(self, f: Callable[[str, Tensor], Tensor]) -> None:
        """Replaces each tensor of this module alone by `f(attribute name, tensor)`.

        Args:
            f: Takes a name and a tensor and returns a tensor.
        """
        for name, tensor in list(self.local_parameters):
            setattr(self, name, f(name, tensor))

    def apply_to_parameters(self, f: Callable[[str, Tensor], Tensor]) -> None:
        """Replaces each parameter by `f(qualified name, tensor)`, in place.

        `f` is called once for each tensor: for a tied one with its first name, and all its names
        get the result. If `f` raises, parameters before that one are already replaced.

        Args:
            f: Takes a name and a tensor and returns a tensor.

        Example:
            >>> from maxmod import DType
            >>> from maxmod.nn import Linear
            >>> layer = Linear(2, 3)
            >>> layer.apply_to_parameters(lambda name, x: x.cast(DType.bfloat16))
            >>> layer.weight.dtype
            bfloat16
        """
        for parameter in parameters_of(self):
            parameter.replace(f(parameter.names[0], parameter.tensor))

    def map_parameters(self, f: Callable[[str, Tensor], Tensor]) -> Self:
        """Returns a copy of the module with each parameter replaced by `f(qualified name, tensor)`.

        Modules and other attributes are copied deeply, tensors are not copied at all: a tensor that
        `f` returns unchanged is shared with the original. Tied parameters stay tied.

        Args:
            f: Takes a name and a tensor and returns a tensor.

        Returns:
            The copy.

        Example:
            >>> from maxmod import DType
            >>> from maxmod.nn import Linear
            >>> layer = Linear(2, 3)
            >>> half = layer.map_parameters(lambda name, x: x.cast(DType.float16))
            >>> half.weight.dtype, layer.weight.dtype
            (float16, float32)
        """
        copied = copy.deepcopy(self)
        for parameter in parameters_of(copied):
            new = f(parameter.names[0], parameter.tensor)
            for place in parameter.places:
                place.write(new, force=True)
        return copied

    def to(self, target: DeviceLike | None = None, *, device: DeviceLike | None = None) -> Self:
        """Moves all parameters to a device, in place, and returns the module.

        Tensors already on the device are kept. A tensor without data (see `F.lazy`) is made there
        when it is needed. Attributes that the class annotates as `PinnedDeviceTensor` are not
        moved. Calls `to` of each child and of modules in containers, which may override it.

        Args:
            target: The target device.
            device: Another name of `target`, which it has in MAX 25.7.

        Returns:
            The module itself.

        Raises:
            TypeError: If the target is neither a `Device` nor a `DeviceRef`, or given twice.
        """
        if target is not None and device is not None:
            raise OperandError("to: the target is given twice, also as device.")
        place: Any = device if target is None else target
        ref = DeviceRef.from_device(place)
        if MOVING.get() is None:
            warn_of_containers(self, "to")
        pinned = pinned_attributes(type(self))
        with one_move(self) as move:
            for name, attribute, keys, tensor, _ in tensors_in(self):
                if attribute in pinned:
                    continue
                new = move.copies.get(id(tensor))
                if new is None:
                    new = moved(tensor, ref)
                if id(tensor) in move.copies:
                    move.copies[id(tensor)] = new
                if new is not tensor:
                    Place(self, attribute, name, keys).write(new)
            # Written to the dictionary, so that this works for frozen modules already on `ref`.
            vars(self)[_DEVICE] = ref
            for _, child in list(self.children):
                child.to(place)
            for held in contained(self):
                if isinstance(held.item, Module) and id(held.item) not in move.around:
                    held.item.to(place)
        return self

    # ---- loading -----------------------------------------------------------------------------

    def load_state(self, lookup: Callable[[str], Any] | Callable[[str, Tensor], Any]) -> None:
        """Replaces each parameter by the result of a function of its name.

        Shape, dtype and device are taken from the new value and not compared with the old one; use
        `load_state_dict` for that. Nothing is written unless every name has a value.

        Args:
            lookup: `lookup(qualified name)` or `lookup(qualified name, current tensor)`; returns a
                tensor or any array that supports DLPack. For a tied parameter it is asked for every
                name; `KeyError` is accepted for all but one of them.

        Raises:
            WeightsError: (a KeyError and ValueError) Listing every name for which `lookup` raised
                `KeyError`. Other exceptions of `lookup` are passed on.
        """
        warn_of_containers(self, "load_state")
        tied = parameters_of(self)
        replace_all(tied, values_of_lookup(tied, lookup, action="load_state"))

    def load_state_dict(
        self, state: StateLike, strict: bool = True, *, auto_cast: bool = False
    ) -> None:
        """Replaces all parameters by the values of a mapping, or none of them.

        Values are moved to the device of the parameter that they replace. Of a tied parameter, one
        name is enough; if there are more, their values must be equal. Tensors in a list, tuple or
        dict may be caches or tables: if the mapping has none of one container, they are left as
        they are, with a warning. Modules in containers must have their values.

        Args:
            state: Qualified names to tensors or arrays that support DLPack; a checkpoint is one.
            strict: Reject names that no parameter has. Missing names are always an error.
            auto_cast: Convert between float32, bfloat16 and float16, and log the counts.

        Raises:
            WeightsError: (a KeyError and ValueError) Listing every missing, unused and mismatched
                name. In a script for MAX 25.7 or 26.1 (see `compat.install`) nothing is mismatched:
                as there, values of other shapes and dtypes replace the parameters, and a line of
                the log says so.

        Example:
            >>> import numpy as np
            >>> from maxmod.nn import Linear
            >>> layer = Linear(2, 1)
            >>> layer.load_state_dict(
            ...     {"weight": np.array([[1, 2]], "f"), "bias": np.array([3], "f")}
            ... )
            >>> layer.weight.to_numpy().tolist()
            [[1.0, 2.0]]
        """
        warn_of_containers(self, "load_state_dict")
        tied = parameters_of(self)
        values = values_of_mapping(
            tied,
            state,
            action="load_state_dict",
            strict=strict,
            auto_cast=auto_cast,
            checked=era.current() not in _UNCHECKED,
        )
        replace_all(tied, values)

    # ---- compiling ---------------------------------------------------------------------------

    def compile(
        self,
        *input_types: object,
        weights: StateLike | None = None,
        name: str | None = None,
        auto_cast: bool = False,
        session: object = None,
        custom_extensions: Iterable[object] = (),
        allow_subgraphs: bool = True,
        is_device_graph: bool = False,
        signal_buffer_index: int | None = None,
        **keyword_types: object,
    ) -> CompiledModel:
        """Traces the module for arguments of the given types and compiles it.

        The module is called once, with tensors that have a type and no data. Its parameters become
        the weights of the compiled model, with the values that they have now; other tensors that
        the call uses become constants.

        Args:
            *input_types: A `TensorType` for each positional argument, or a `BufferType` for one
                that is changed in place, or a nested list, tuple or dict of them. Any other value
                is passed to the call unchanged. A symbolic dimension (a str) takes any size.
            weights: Values to use in place of the parameters' own, which are then never made: with
                `F.lazy()` a model can be compiled without memory for its initial values.
            name: Name of the graph; the name of the class by default.
            auto_cast: Convert `weights` between float32, bfloat16 and float16.
            session: Accepted for compatibility.
            custom_extensions: Must be empty; `F.custom` takes kernels.
            allow_subgraphs: Accepted for compatibility, like the two below.
            is_device_graph: No effect.
            signal_buffer_index: No effect.
            **keyword_types: The same as `input_types` for arguments that are passed by name.

        Returns:
            A function of the same arguments, in order or by name, and with the same structure of
            results.

        Raises:
            TypeError: If the types do not fit the call, or it looks at the data of a tensor.
            WeightsError: (a KeyError and ValueError) If `weights` do not fit the parameters.

        Example:
            >>> from maxmod import CPU, DType, Tensor, TensorType
            >>> from maxmod.nn import Linear
            >>> compiled = Linear(4, 3).compile(TensorType(DType.float32, ["batch", 4], CPU()))
            >>> compiled(Tensor.ones([2, 4])).shape, compiled(Tensor.ones([7, 4])).shape
            ([Dim(2), Dim(3)], [Dim(7), Dim(3)])
        """
        _refuse_extensions(custom_extensions)
        warn_of_containers(self, "compile")
        tied = parameters_of(self)
        values: dict[str, Tensor] | None = None
        if weights is not None:
            new = values_of_mapping(
                tied, weights, action="compile", strict=False, auto_cast=auto_cast
            )
            values = {name: value for p, value in zip(tied, new) for name in p.names}
        return compile_function(
            self,
            input_types,
            name=name or type(self).__qualname__,
            parameters=by_name(tied),
            weights=values,
            keyword_types=keyword_types,
        )

    def trace(
        self,
        *input_types: object,
        name: str | None = None,
        custom_extensions: Iterable[object] = (),
        allow_subgraphs: bool = True,
        is_device_graph: bool = False,
        signal_buffer_index: int | None = None,
        **keyword_types: object,
    ) -> StagedGraph:
        """Traces the module as `compile` does, without compiling; the result prints as a graph.

        Parameters need no values.

        Args:
            *input_types: As for `compile`.
            name: Name of the graph; the name of the class by default.
            custom_extensions: Must be empty; `F.custom` takes kernels.
            allow_subgraphs: Accepted for compatibility, like the two below.
            is_device_graph: No effect.
            signal_buffer_index: No effect.
            **keyword_types: As for `compile`.

        Returns:
            The graph, with the types of its inputs, outputs and weights.

        Raises:
            TypeError: As for `compile`.
        """
        _refuse_extensions(custom_extensions)
        return trace_function(
            self,
            input_types,
            name=name or type(self).__qualname__,
            parameters=by_name(parameters_of(self)),
            keyword_types=keyword_types,
        )

    # ---- printing ----------------------------------------------------------------------------

    def summary(self, *input_types: object) -> Summary:
        """Returns a table of the modules with their numbers of parameters and bytes.

        Equal neighbours share a row. Parameters need no values.

        Args:
            *input_types: As for `compile`; with them, the module is traced and the table shows what
                each part returns.

        Example:
            >>> from maxmod.nn import Linear, Sequential
            >>> Sequential(Linear(5, 10), Linear(10, 5)).summary().parameter_count
            115
        """
        return summarize(self, input_types)

    def __rich_repr__(self) -> Iterable[object]:
        """Yields what `repr` shows, in the protocol of the rich library: the children."""
        yield from self.children

    def __repr__(self) -> str:
        return pretty_repr(self)


class TransparentModule(Module[P, R]):
    """A module whose own name is left out of the qualified names inside it.

    Such a wrapper can be put around a layer without changing the names of its weights:
    `wrapper.base.weight` is `base.weight`. `children` and `descendants` still include the
    attribute's name.

    Example:
        >>> from maxmod import Module
        >>> from maxmod.nn import Linear, TransparentModule
        >>> class Wrapper(TransparentModule):
        ...     def __init__(self, base: Linear) -> None:
        ...         self.base = base
        >>> class Outer(Module):
        ...     def __init__(self) -> None:
        ...         self.wrapped = Wrapper(Linear(2, 1))
        >>> [name for name, _ in Outer().parameters]
        ['base.weight', 'base.bias']
    """

    name_transparent = True


def _places(module: Module) -> Iterator[Place]:
    """Looks for parameters when the first is asked for."""
    yield from places_of(module)


def _refuse_extensions(custom_extensions: Iterable[object]) -> None:
    if list(custom_extensions):
        raise NotImplementedError(
            "compile: custom_extensions: kernel packages are not supported. Hint: F.custom takes "
            "CUDA source and a NumPy version."
        )


C = TypeVar("C", bound=type[Module])


@overload
def module_dataclass(cls: C, /, *, repr: bool = False, **kwargs: object) -> C: ...


@overload
def module_dataclass(
    cls: None = None, /, *, repr: bool = False, **kwargs: object
) -> Callable[[C], C]: ...


@dataclass_transform()
def module_dataclass(cls: Any = None, /, *, repr: bool = False, **kwargs: Any) -> Any:
    """Makes a dataclass of a subclass of `Module`; its fields are attributes in order.

    Works bare and with arguments: ``@module_dataclass`` or ``@module_dataclass(eq=False)``.

    Args:
        cls: The class.
        repr: Use the repr of dataclasses instead of the repr of modules, which shows the fields
            that differ from their default.
        **kwargs: Arguments of `dataclasses.dataclass`. With its default `eq=True`, instances are
            compared by their fields and cannot be hashed.

    Raises:
        TypeError: If the class is not a `Module`, or `slots=True` is given, which would hide the
            fields from every query.

    Example:
        >>> from maxmod import Module, Tensor, module_dataclass
        >>> @module_dataclass
        ... class Scale(Module):
        ...     weight: Tensor
        ...     def forward(self, x: Tensor) -> Tensor:
        ...         return x * self.weight
        >>> [name for name, _ in Scale(Tensor.ones([3])).parameters]
        ['weight']
    """
    if kwargs.get("slots"):
        raise OperandError(
            "module_dataclass: slots=True is not supported: parameters must be ordinary attributes."
        )

    def decorate(cls: C) -> C:
        if not (isinstance(cls, type) and issubclass(cls, Module)):
            raise OperandError(
                f"module_dataclass: expected a subclass of Module, got {cls!r}. Hint: write class "
                "Name(Module)."
            )
        _free_field_names(cls)
        made = dataclasses.dataclass(cls, repr=repr, **kwargs)  # type: ignore[call-overload]
        if made.__rich_repr__ is Module.__rich_repr__:
            made.__rich_repr__ = _show_fields
        return made

    return decorate if cls is None else decorate(cls)


def _show_fields(self: Any) -> Iterator[Any]:
    """The `__rich_repr__` of module dataclasses: tensors always, others unless as by default."""
    for field in dataclasses.fields(self):
        value = getattr(self, field.name)
        if isinstance(value, Tensor):
            yield field.name, value
        else:
            yield field.name, value, field.default


def _free_field_names(cls: Any) -> None:
    """Keeps `dataclass` from using the property `Module.device` as the default of a field."""
    if "device" in own_annotations(cls) and "device" not in vars(cls):
        cls.device = dataclasses.field()
