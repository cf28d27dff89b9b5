"""Names for several devices, graphs and caches, as model files import them, on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated_cuda import emulated_cuda

from maxmod import CPU, BufferType, DType, Module, Tensor, TensorType, compat
from maxmod import functional as F
from maxmod.compat.common_layers.embedding import VocabParallelEmbedding
from maxmod.compat.common_layers.linear import ColumnParallelLinear, RowParallelLinear
from maxmod.compat.common_layers.mlp import MLP
from maxmod.compat.common_layers.moe import MoEGate
from maxmod.compat.common_layers.rotary_embedding import RotaryEmbedding
from maxmod.compat.compilation import CompiledCallable, StagedGraph, compile, stage
from maxmod.compat.graph_weights import SafetensorWeights, WeightData, Weights, load_weights
from maxmod.compat.kv_cache import KVCacheParams, PagedCacheValues
from maxmod.engine import InferenceSession
from maxmod.graph import DeviceRef, Graph
from maxmod.nn import LayerList, Linear, rope
from maxmod.values.sharding import (
    BufferLayout,
    ConversionError,
    DeviceMesh,
    NamedMapping,
    Partial,
    PlacementMapping,
    Replicated,
    Sharded,
    TensorLayout,
)
from maxmod.weights import save_state

MESH = DeviceMesh((CPU(),), (1,), ("tp",))
GRID = DeviceMesh((CPU(),) * 6, (2, 3), ("dp", "tp"))
LAYOUT = TensorLayout(DType.float32, ["batch", 4], MESH)


class TestMeshes:
    """`DeviceMesh` and the mappings."""

    def test_axes_of_a_mesh(self) -> None:
        assert (GRID.ndim, GRID.num_devices, GRID.axis_size("tp"), GRID.axis_size(0)) == (
            2,
            6,
            3,
            2,
        )
        assert [GRID.device_coord(4, axis) for axis in (0, "tp")] == [1, 1]
        assert (GRID.is_single, GRID.is_simulated, MESH.is_single) == (False, True, True)
        assert DeviceMesh.default().devices == (CPU(),)
        assert DeviceMesh([DeviceRef.GPU(0), CPU()], [2], ["tp"]).is_simulated is False

    def test_a_wrong_mesh_is_refused(self) -> None:
        for parts in (((CPU(),), (2,), ("a",)), ((CPU(),), (1,), ("a", "b")), ((), (0,), ("a",))):
            with pytest.raises(ValueError, match="DeviceMesh"):
                DeviceMesh(*parts)
        with pytest.raises(ValueError, match="one name twice"):
            DeviceMesh((CPU(),), (1, 1), ("a", "a"))
        with pytest.raises(TypeError, match="expected a Device"):
            DeviceMesh(("cpu",), (1,), ("a",))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no axis 'pp'"):
            GRID.axis_size("pp")
        for index in (2, -1):
            with pytest.raises(IndexError):
                GRID.axis_size(index)
        with pytest.raises(IndexError):
            GRID.device_coord(6, 0)

    def test_mappings_convert_into_each_other(self) -> None:
        mapping = PlacementMapping(GRID, (Sharded(1), Replicated()))
        named = mapping.to_named_sharding(2)
        assert named == NamedMapping(GRID, [None, "dp"])
        assert named.to_placements() == mapping.placements
        assert NamedMapping(GRID, [("dp", "tp")]).to_placements() == (Sharded(0), Sharded(0))
        both = PlacementMapping(GRID, (Sharded(0), Sharded(0))).to_named_sharding(1)
        assert both.spec == (("dp", "tp"),)
        assert not mapping.is_fully_replicated
        assert NamedMapping(GRID, [None]).is_fully_replicated
        for wrong in ((Sharded(2), Replicated()), (Partial(), Replicated())):
            with pytest.raises(ConversionError):
                PlacementMapping(GRID, wrong).to_named_sharding(2)
        with pytest.raises(ValueError, match="expected 2 placements"):
            PlacementMapping(GRID, (Replicated(),))
        with pytest.raises(ValueError, match="twice"):
            NamedMapping(GRID, ["dp", "dp"])

    def test_one_device_is_wanted_where_a_tensor_is_made_or_moved(self) -> None:
        uses: tuple[Callable[[Any], object], ...] = (
            lambda place: Tensor.ones([2], device=place),
            lambda place: Linear(2, 2).to(place),
            lambda place: TensorType(DType.float32, [2], place),
            lambda place: TensorLayout(DType.float32, [2], place),
        )
        for place in (GRID, PlacementMapping(GRID, (Replicated(), Replicated()))):
            for use in uses:
                with pytest.raises(ValueError, match="expected a mesh of one device"):
                    use(place)


class TestLayouts:
    """`TensorLayout` is a type, and a tensor has one."""

    def test_a_layout_takes_a_mapping_a_mesh_or_a_device(self) -> None:
        for where in (PlacementMapping(MESH, [Replicated()]), MESH):
            layout = TensorLayout(DType.float32, ["batch", 4], where)
            assert (layout.mesh, layout.rank, layout.device) == (MESH, 2, DeviceRef.CPU())
            assert layout.to_placements() == (Replicated(),)
        assert TensorLayout(DType.int8, [2], device=CPU()).mesh == DeviceMesh.default()
        assert TensorLayout(DType.int8, [2], LAYOUT).mapping == LAYOUT.mapping
        with pytest.raises(TypeError, match="either a mapping or a device"):
            TensorLayout(DType.int8, [2])

    def test_a_module_is_compiled_for_layouts(self) -> None:
        class Add(Module[..., None]):
            def forward(self, total: Tensor, x: Tensor) -> None:
                assert type(x.type) is TensorType
                F.buffer_store(total, total + x)

        row = BufferLayout(DType.float32, [2], device=MESH)
        assert isinstance(row, BufferType)
        total = Tensor([1.0, 2.0])
        Add().compile(row, TensorLayout(DType.float32, [2], MESH))(total, Tensor([3.0, 4.0]))
        assert total.to_numpy().tolist() == [4.0, 6.0]
        assert stage(Linear(4, 3), LAYOUT).in_layouts == [LAYOUT]

    def test_layout_of_a_tensor(self) -> None:
        x = Tensor([1.0, 2.0])
        assert (x.mesh, x.placements) == (DeviceMesh.single(CPU()), (Replicated(),))
        assert x.mapping == x.layout.mapping == PlacementMapping(x.mesh, x.placements)
        assert (x.layout.dtype, x.layout.shape) == (x.dtype, x.shape)

    def test_modules_move_to_a_mesh(self) -> None:
        with emulated_cuda() as (gpu, _):
            layer = Linear(2, 2).to(DeviceMesh((gpu,), (1,), ("tp",)))
            assert layer.weight.device == layer.device == gpu
            layer.to(PlacementMapping(DeviceMesh.single(CPU()), (Replicated(),)))
            assert layer.weight.device == CPU()


def test_functions_and_modules_are_compiled_and_staged() -> None:
    layer = Linear(4, 3)
    x = Tensor.ones([2, 4])
    compiled = compile(layer, LAYOUT, name="layer")
    assert isinstance(compiled, CompiledCallable)
    np.testing.assert_allclose(compiled(x).to_numpy(), layer(x).to_numpy(), 1e-5, 1e-6)
    staged = stage(lambda a: a * 2, LAYOUT)
    assert isinstance(staged, StagedGraph)
    assert "mul" in str(staged)


class TestGraphWeights:
    """`max.graph.weights`."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        values = {"model.layers.0.w": np.arange(4, dtype=np.float32), "head": np.ones(3, np.int8)}
        save_state(values, tmp_path / "a.safetensors")
        return tmp_path / "a.safetensors"

    def test_names_are_attributes_and_indices(self, path: Path) -> None:
        weights = load_weights([path])
        assert isinstance(weights, SafetensorWeights)
        assert isinstance(weights, Weights)
        w = weights.model.layers[0].w
        assert (w.name, w.exists(), w.data().dtype) == ("model.layers.0.w", True, DType.float32)
        assert w.raw_tensor().tolist() == np.asarray(w.data()).tolist() == [0, 1, 2, 3]
        assert {name for name, _ in weights.items()} == {"head", "model.layers.0.w"}
        assert [name for name, _ in weights.model.items()] == ["model.layers.0.w"]
        assert not weights.model.layers[1].w.exists()
        with pytest.raises(KeyError, match=r"model.layers.0.v.*Did you mean"):
            weights.model.layers[0].v.data()

    def test_weights_are_operands_of_a_graph(self, path: Path) -> None:
        weights = load_weights([path])
        weight = weights.model.layers[0].w.allocate(DType.float32, [4])
        row = TensorType(DType.float32, [4], CPU())
        graph = Graph("scaled", lambda x: x * weight, input_types=[row])
        model = InferenceSession().load(graph, weights_registry=weights.allocated_weights)
        assert model(np.full(4, 2, np.float32))[0].to_numpy().tolist() == [0, 2, 4, 6]
        with pytest.raises(ValueError, match="expected float16"):
            weights.head.allocate(DType.float16)
        with pytest.raises(ValueError, match="expected shape"):
            weights.head.allocate(shape=[4])

    def test_files_of_other_formats_are_refused(self, path: Path) -> None:
        with pytest.raises(ValueError, match="GGUF files are not supported"):
            load_weights([path.with_suffix(".gguf")])
        for paths in ([], [path, "x.gguf"], ["x.bin"]):
            with pytest.raises(ValueError, match="expected files that end"):
                load_weights(paths)
        with pytest.raises(ValueError, match="is also in another file"):
            load_weights([path, path])

    def test_data_is_converted(self) -> None:
        data = WeightData.from_numpy(np.array([[1, 2], [3, 4]], np.float32).T, "w")
        assert np.asarray(data).tolist() == [[1, 3], [2, 4]]
        assert data.astype(DType.float32) is data
        assert np.asarray(data.astype(DType.int32)).tolist() == [[1, 3], [2, 4]]


def test_records_of_a_paged_cache() -> None:
    params = KVCacheParams(
        DType.float16, 2, 4, num_layers=3, devices=[DeviceRef.CPU()], page_size=8
    )
    assert params.shape_per_block == [2, 3, 8, 2, 4]
    assert params.bytes_per_block == 2 * np.empty(params.shape_per_block, np.int8).size
    assert list(PagedCacheValues(1, 2, 3, 4)) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="one device"):
        KVCacheParams(DType.float16, 2, 4, devices=[DeviceRef.CPU()] * 2)
    with pytest.raises(ValueError, match="head_dim"):
        KVCacheParams(DType.float16, 2, 0)


class TestCommonLayers:
    """`max.experimental.nn.common_layers`."""

    def test_parallel_layers_are_the_plain_ones(self) -> None:
        x = Tensor([[1.0, 2.0]])
        for made in (ColumnParallelLinear(2, 3), RowParallelLinear(2, 3, bias=False)):
            want = x.to_numpy() @ made.weight.to_numpy().T
            bias = made.bias.to_numpy() if isinstance(made.bias, Tensor) else 0
            np.testing.assert_allclose(made(x).to_numpy(), want + bias, rtol=1e-5, atol=1e-6)
        assert VocabParallelEmbedding(5, dim=2)(Tensor([1], dtype=DType.int64)).shape == [1, 2]

    def test_mlp(self) -> None:
        mlp = MLP(3, 5, bias=True)
        assert [name for name, _ in mlp.children] == ["gate_proj", "up_proj", "down_proj"]
        x = np.array([[0.5, -1.0, 2.0]])
        w = {name: value.to_numpy().astype(np.float64) for name, value in mlp.parameters}
        gate, up = (x @ w[f"{n}.weight"].T + w[f"{n}.bias"] for n in ("gate_proj", "up_proj"))
        want = gate / (1 + np.exp(-gate)) * up @ w["down_proj.weight"].T + w["down_proj.bias"]
        got = mlp(Tensor(x.astype(np.float32))).to_numpy()
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match="expected one of"):
            MLP(3, 5, activation_function="sliu")

    def test_moe_gate(self) -> None:
        gate = MoEGate(3, 4, 2)
        x = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]], np.float32)
        scores = x @ gate.gate_score.weight.to_numpy().T
        experts, chosen = gate(Tensor(x))
        want = np.argsort(-scores, axis=-1)[:, :2]
        assert experts.to_numpy().tolist() == want.tolist()
        found = np.take_along_axis(scores, want, -1)
        np.testing.assert_allclose(chosen.to_numpy(), found, rtol=1e-5, atol=1e-6)
        with pytest.raises(ValueError, match="expected 1 to 4"):
            MoEGate(3, 4, 5)

    def test_rotary_embedding(self) -> None:
        x = Tensor(np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 2, 2, 4))
        table = rope.positional_embedding(4, 100.0, 8)
        for interleaved, plain in (
            (True, rope.RotaryEmbedding),
            (False, rope.TransposedRotaryEmbedding),
        ):
            made = RotaryEmbedding(8, 2, 100.0, 8, interleaved=interleaved)
            assert list(made.parameters) == []
            assert made.freqs_cis.shape == [8, 2, 2]
            want = plain(table)(x, start_pos=3).to_numpy()
            assert np.array_equal(made(x, start_pos=3).to_numpy(), want)
        with pytest.raises(ValueError, match="even head_dim"):
            RotaryEmbedding(6, 2, 100.0, 8)

    def test_layer_list(self) -> None:
        layers: LayerList[Any] = LayerList([Linear(2, 2)])
        layers.append(Linear(2, 3))
        assert list(layers.sublayers) == ["0", "1"]
        assert [name for name, _ in layers.parameters][-1] == "1.bias"


class TestPaths:
    """The names as scripts import them."""

    @pytest.fixture(autouse=True)
    def installed(self) -> Iterator[None]:
        assert compat.install()
        yield
        compat.uninstall()

    @pytest.mark.parametrize(
        "line",
        [
            "from max.experimental.sharding import DeviceMesh, TensorLayout, Replicated, Sharded",
            "from max.experimental.compilation import CompiledCallable, StagedGraph, stage",
            "from max.graph.weights import Weights, WeightData, WeightsFormat, WeightsAdapter",
            "from max.nn.kv_cache import KVCacheParams, PagedCacheValues",
            "from max.nn.transformer import ReturnLogits",
            "from max.nn.attention import MHAMaskVariant",
            "from max.nn import LayerList",
            "from max.experimental.nn.common_layers.mlp import MLP",
            "from max.experimental.nn.common_layers.kv_cache import PagedCacheValues",
            "from max.experimental.nn.common_layers.linear import ColumnParallelLinear",
            "from max.experimental.nn.common_layers.attention import MHAMaskVariant",
        ],
        ids=lambda line: line.split()[1],
    )
    def test_a_line_of_a_model_file_runs(self, line: str) -> None:
        exec(line, {})

    def test_attention_over_pages_is_refused_with_the_reason(self) -> None:
        with pytest.raises(ImportError, match="no attention over pages"):
            exec("from max.nn.attention import AttentionWithRope", {})
