"""`InferenceSession`: compiles graphs that were built by hand into models on buffers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maxmod import backends
from maxmod.backends.devices import CPU, Accelerator, Device
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DeviceError, OperandError, WeightsError
from maxmod.graph.builder import Graph
from maxmod.op.ir import Graph as TracedGraph
from maxmod.runtime import tree
from maxmod.runtime.compiled import CompiledModel
from maxmod.runtime.signature import Signature
from maxmod.runtime.staging import TENSOR, StagedGraph
from maxmod.tensor import Tensor
from maxmod.tensor.buffer import Buffer
from maxmod.tensor.exchange import DLPackArray
from maxmod.tensor.like import StateLike
from maxmod.values.device import DeviceRef
from maxmod.values.tensor_type import BufferType, TensorType


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The name, dtype and shape of one input or output of a model.

    Attributes:
        name: `input0`, `output0` and so on.
        dtype: Element type.
        shape: Sizes; a str for a symbolic dimension or an expression of some.
    """

    name: str
    dtype: DType
    shape: list[int | str]

    @staticmethod
    def of(name: str, type: TensorType) -> TensorSpec:
        """Makes the spec of a type."""
        sizes = [size if isinstance(size, int) else str(size) for size in type.sizes]
        return TensorSpec(name, type.dtype, sizes)


class Model:
    """A compiled graph; called with a value for each input, it returns a list of buffers.

    It takes tensors, buffers, any array that supports DLPack, and numbers and nested lists, and
    moves them to the device of the input. The buffer of an input of a `BufferType` is changed in
    place, and must already be on that device.

    Attributes:
        compiled: The compiled function behind it, for `explain()` and `memory_plan()`.
    """

    def __init__(self, compiled: CompiledModel) -> None:
        self.compiled = compiled
        self._types = compiled.in_layouts

    @property
    def input_metadata(self) -> list[TensorSpec]:
        """The inputs of the model."""
        return [TensorSpec.of(f"input{i}", type) for i, type in enumerate(self._types)]

    @property
    def output_metadata(self) -> list[TensorSpec]:
        """The outputs of the model."""
        return [TensorSpec.of(f"output{i}", t) for i, t in enumerate(self.compiled.out_layouts)]

    def __call__(self, *args: object, **kwargs: Any) -> list[Buffer]:
        """Runs the model.

        Args:
            *args: The inputs in order.
            **kwargs: Inputs by name: `input0`, `input1`, ...

        Raises:
            TypeError: For a wrong number of inputs or an unsupported kind of input.
            ValueError: If the type of an input does not fit.
        """
        return self.execute(*args, **kwargs)

    def execute(
        self, *args: object, copy_inputs_to_device: bool = True, **kwargs: object
    ) -> list[Buffer]:
        """Runs the model, as a call of it does.

        Args:
            *args: The inputs in order.
            copy_inputs_to_device: Move inputs to the devices of the graph; otherwise they must
                already be there.
            **kwargs: Inputs by name: `input0`, `input1`, ...

        Returns:
            A list of buffers, one for each output.

        Raises:
            TypeError: For a wrong number of inputs or an unsupported kind of input.
            ValueError: If the type of an input does not fit.
        """
        inputs = self._ordered(args, kwargs)
        if copy_inputs_to_device:
            inputs = [_moved(value, type) for value, type in zip(inputs, self._types, strict=True)]
        return [tensor.driver_tensor for tensor in self.compiled(*inputs)]

    def _ordered(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[object]:
        names = [f"input{index}" for index in range(len(self._types))]
        rest = names[len(args) :]
        if len(args) > len(names) or set(rest) != set(kwargs):
            given = f"{len(args)} in order" + "".join(f", {name!r}" for name in kwargs)
            raise OperandError(
                f"{self.compiled.__name__}: expected {len(names)} inputs, got {given}."
            )
        return [*args, *(kwargs[name] for name in rest)]

    def __repr__(self) -> str:
        return repr(self.compiled).replace("CompiledModel", "Model", 1)


def _moved(value: object, type: TensorType) -> object:
    """Moves an input to the device of its type; returns numbers and unknown objects unchanged."""
    if isinstance(type, BufferType):  # a copy would be changed in its place
        return value
    if isinstance(value, (list, tuple)):
        return Tensor(value, dtype=type.dtype, device=type.device)
    if not isinstance(value, (Tensor, Buffer, DLPackArray)):
        return value
    return Tensor.from_dlpack(value).to(type.device)


class InferenceSession:
    """Compiles graphs that were built by hand; a module has `compile` for that.

    Args:
        devices: The devices that graphs may use besides the host; all of this machine by default.
        num_threads: Must be None; `MAXMOD_THREADS` sets the number of threads.
        custom_extensions: Must be empty; `F.custom` takes kernels.

    Raises:
        NotImplementedError: If `num_threads` or `custom_extensions` are given.

    Example:
        >>> import numpy as np
        >>> from maxmod import CPU, DType, TensorType
        >>> from maxmod.engine import InferenceSession
        >>> from maxmod.graph import Graph
        >>> row = TensorType(DType.float32, ["n"], CPU())
        >>> with Graph("double", input_types=[row]) as graph:
        ...     graph.output(graph.inputs[0] * 2)
        >>> model = InferenceSession().load(graph)
        >>> model(np.array([1, 2, 3], np.float32))[0].to_numpy().tolist()
        [2.0, 4.0, 6.0]
    """

    def __init__(
        self,
        devices: Iterable[Device] | None = None,
        num_threads: int | None = None,
        *,
        custom_extensions: object = None,
    ) -> None:
        if num_threads is not None or custom_extensions:
            raise NotImplementedError(
                "InferenceSession: num_threads and custom_extensions are not supported."
            )
        if devices is None:
            devices = [Accelerator(index) for index in range(backends.accelerator_count())]
        refs = [DeviceRef.from_device(device) for device in (*devices, CPU())]
        self._refs = tuple(dict.fromkeys(refs))

    @property
    def devices(self) -> list[Device]:
        """The devices that graphs may use."""
        return [ref.to_device() for ref in self._refs]

    def load(
        self,
        model: Graph,
        *,
        custom_extensions: object = None,
        weights_registry: StateLike | None = None,
    ) -> Model:
        """Compiles a graph.

        Args:
            model: A graph with outputs.
            custom_extensions: Must be empty.
            weights_registry: Arrays for the weights of the graph, by name; extra ones are ignored.

        Returns:
            The compiled model.

        Raises:
            WeightsError: (a KeyError and ValueError) If weights are missing or have wrong types.
            ValueError: If the graph has no output, or uses a device that the session does not have.
            TypeError: If `model` is not a `Graph`.
        """
        if not isinstance(model, Graph):
            raise OperandError(f"load: expected a Graph, got {type(model).__name__}.")
        if custom_extensions:
            raise NotImplementedError("load: custom_extensions are not supported.")
        graph = model.build()
        self._check_devices(graph)
        signature = Signature(model.input_types, [f"input{i}" for i in range(len(graph.inputs))])
        leaves, out_tree = tree.flatten([TENSOR] * len(graph.outputs))
        staged = StagedGraph(graph, signature.tree, out_tree, tuple(leaves), signature)
        return Model(CompiledModel(staged, _weights(graph, weights_registry or {}), model))

    def compile(
        self,
        model: Graph,
        *,
        custom_extensions: object = None,
        weights_registry: StateLike | None = None,
    ) -> Model:
        """Compiles a graph, as `load` does.

        Args:
            model: A graph with outputs.
            custom_extensions: Must be empty.
            weights_registry: Arrays for the weights of the graph, by name; extra ones are ignored.

        Returns:
            The compiled model, ready to be called.

        Raises:
            WeightsError: (a KeyError and ValueError) If weights are missing or have wrong types.
            ValueError: If the graph has no output, or uses a device that the session does not have.
            TypeError: If `model` is not a `Graph`.
        """
        return self.load(
            model, custom_extensions=custom_extensions, weights_registry=weights_registry
        )

    def _check_devices(self, graph: TracedGraph) -> None:
        values = [*graph.inputs, *graph.weights.values(), *graph.constants]
        values += [value for node in graph.nodes for value in node.outputs]
        if not values:
            raise ArgumentError(f"load: the graph {graph.name} is empty.")
        unknown = {value.type.device for value in values} - set(self._refs)
        if unknown:
            raise DeviceError(
                f"load: the graph {graph.name} uses {', '.join(sorted(map(str, unknown)))}, the "
                f"session has {', '.join(map(str, self._refs))}. Hint: "
                "InferenceSession(devices=[Accelerator()])."
            )


def _weights(graph: TracedGraph, registry: StateLike) -> dict[str, Tensor]:
    """Takes the weights of a graph from a registry, after checking all of them."""
    found: dict[str, Tensor] = {}
    wrong = []
    for name, value in graph.weights.items():
        if name not in registry:
            wrong.append(f"{name!r} is missing")
            continue
        tensor = Tensor.from_dlpack(registry[name])
        if (tensor.dtype, tensor.sizes) != (value.type.dtype, value.type.sizes):
            wrong.append(f"{name!r}: expected {value.type.short()}, got {tensor.type.short()}")
        found[name] = tensor
    if wrong:
        raise WeightsError(
            f"load: weights_registry does not fit the graph {graph.name}: {'; '.join(wrong)}."
        )
    return {name: found[name].to(value.type.device) for name, value in graph.weights.items()}


__all__ = ["InferenceSession", "Model", "TensorSpec"]
