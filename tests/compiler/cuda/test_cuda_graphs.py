"""CUDA graphs on the emulated GPU: steps are recorded in the second call and replayed from then on.

The emulation keeps launches, products and copies with the arguments that they had, and fills what
the pool of a graph gives out with garbage, so that a replay on a wrong address gives wrong numbers.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated_cuda import EmulatedCudaBackend, FakeGraph, FakePool, FakeStream, emulated_cuda

import maxmod
from maxmod import CPU, BufferType, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.cuda import cublaslt
from maxmod.backends.devices import Device
from maxmod.generate import generate, generate_batch
from maxmod.generate.sampling import Sampling
from maxmod.models import load_model
from maxmod.nn import Linear, Sequential
from maxmod.runtime.binding import _Binder
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.runtime.recording import Segment

FIXTURES = Path(__file__).parents[2] / "assets" / "gpt2"
# Kernels of the host are only compared with.
pytestmark = pytest.mark.usefixtures("unoptimised_host_kernels")

WIDTH = 16
LAYERS = 6  # each a launch at least


@pytest.fixture
def gpu() -> Iterator[tuple[Device, EmulatedCudaBackend]]:
    with emulated_cuda() as found:
        yield found


def _gpu(array: Any, device: Device) -> Tensor:
    return Tensor(np.asarray(array, np.float32), device=CPU()).to(device)


def _host(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.to(CPU()).to_numpy().astype(np.float64)


def _weights(device: Device) -> list[Tensor]:
    rng = np.random.default_rng(5)
    return [_gpu(rng.standard_normal((WIDTH, WIDTH)) / 4, device) for _ in range(LAYERS)]


def _network(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    for weight in weights:
        x = F.tanh(x @ weight.T + 0.5)
    return x


def _network_oracle(x: Any, weights: Sequence[Tensor]) -> Any:
    for weight in weights:
        x = np.tanh(x @ _host(weight).T + 0.5)
    return x


def _compiled(device: Device) -> tuple[CompiledModel, list[Tensor]]:
    weights = _weights(device)
    kinds = [TensorType(DType.float32, ["n", WIDTH], device), *[w.type for w in weights]]
    compiled = compile_function(
        lambda x, *rest: _network(x, rest), kinds, name="network", parameters={}
    )
    return compiled, weights


def _check(compiled: CompiledModel, weights: Sequence[Tensor], x: Any, device: Device) -> Tensor:
    result = compiled(_gpu(x, device), *weights)
    np.testing.assert_allclose(_host(result), _network_oracle(x, weights), rtol=1e-5, atol=1e-6)
    return result


def _numbers(compiled: CompiledModel) -> tuple[int, int]:
    return compiled.stats.recordings, compiled.stats.replays


def test_the_second_call_records(gpu: Any) -> None:
    device, backend = gpu
    compiled, weights = _compiled(device)
    rng = np.random.default_rng(0)
    found = []
    for number in range(5):
        x = rng.standard_normal((12, WIDTH))  # too many rows for our own kernels
        found.append((x, _check(compiled, weights, x, device)))
        assert _numbers(compiled) == (min(number, 1), number)
    assert compiled.stats.slower == {}
    for x, result in found:  # results are nobody else's memory
        np.testing.assert_allclose(_host(result), _network_oracle(x, weights), rtol=1e-5, atol=1e-6)
    addresses = {result.data.ctypes.data for _, result in found}
    assert len(addresses) == len(found)
    assert backend.cuda.products.calls


@pytest.mark.parametrize(("least", "counts"), [(0, (6, 5, 10)), (1 << 16, (3, 3, 13))])
def test_sizes_share_the_arena_but_not_the_graph(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, least: int, counts: tuple[int, int, int]
) -> None:
    """Where rising sizes make the arena grow, graphs that hold the old one are forgotten."""
    monkeypatch.setattr("maxmod.runtime.arena.LEAST_NBYTES", least)
    device, _ = gpu
    compiled, weights = _compiled(device)
    rng = np.random.default_rng(1)
    for rows in [2, 9, 2, 2, 9, 9, 40, 2, 2, 40, 40, 9, 9, 2, 40, 9]:
        _check(compiled, weights, rng.standard_normal((rows, WIDTH)), device)
    stats = compiled.stats
    assert (stats.programs, stats.recordings, stats.replays) == counts


def test_options_switch_recording_off(gpu: Any) -> None:
    device, _ = gpu
    compiled, weights = _compiled(device)
    for options in ({"cuda_graphs": False}, {"sync": True}, {"check": True}):
        with maxmod.configure(**options):
            compiled.load_state({})
            for _ in range(3):
                _check(compiled, weights, np.ones((3, WIDTH)), device)
    assert _numbers(compiled) == (0, 0)


def test_few_launches_are_not_recorded(gpu: Any) -> None:
    device, _ = gpu
    kind = TensorType(DType.float32, [8], device)
    compiled = compile_function(lambda x: F.exp(x) + 1, [kind], name="f", parameters={})
    for _ in range(3):
        compiled(_gpu(np.zeros(8), device))
    assert _numbers(compiled) == (0, 0)


def test_new_weights(gpu: Any) -> None:
    device, _ = gpu
    with maxmod.default_device(device), maxmod.default_dtype(DType.float32):
        maxmod.random.set_seed(7)
        model = Sequential(*[Linear(WIDTH, WIDTH) for _ in range(4)])
    compiled = model.compile(TensorType(DType.float32, [2, WIDTH], device))
    x = np.random.default_rng(0).standard_normal((2, WIDTH))
    for scale in (1.0, 0.5):
        state = {name: _gpu(scale * _host(weight), device) for name, weight in model.parameters}
        compiled.load_state(state)
        expected = x
        for n in range(4):
            expected = expected @ _host(state[f"{n}.weight"]).T + _host(state[f"{n}.bias"])
        for _ in range(3):
            found = _host(compiled(_gpu(x, device)))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)  # up to 25
    assert _numbers(compiled) == (2, 4)


# ---- buffers and arguments that must not move ----------------------------------------------------


def _accumulate(device: Device, rows: int = 4) -> CompiledModel:
    """Adds a small network's result to a buffer, and gives the buffer times 2."""
    kinds = [
        BufferType(DType.float32, [rows, WIDTH], device),
        TensorType(DType.float32, [rows, WIDTH], device),
        TensorType(DType.float32, [WIDTH, WIDTH], device),
    ]

    def step(total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        F.buffer_store(total, total + _network(x, [weight] * LAYERS))
        return total * 2

    return compile_function(step, kinds, name="step", parameters={})


def test_recorded_stores_change_buffers_in_place(gpu: Any) -> None:
    """A recording is used for the buffers that it was made with; with others it runs as it is."""
    device, _ = gpu
    compiled = _accumulate(device)
    weight = _weights(device)[0]
    rng = np.random.default_rng(2)
    totals = [np.zeros((4, WIDTH)), np.ones((4, WIDTH))]
    buffers = [_gpu(total, device) for total in totals]
    for which in [0, 0, 0, 1, 0, 1, 1, *[0] * 9, 1, 1, 1, 0, 1]:
        x = rng.standard_normal((4, WIDTH))
        totals[which] = totals[which] + _network_oracle(x, [weight] * LAYERS)
        twice = compiled(buffers[which], _gpu(x, device), weight)
        np.testing.assert_allclose(_host(twice), 2 * totals[which], rtol=1e-5, atol=1e-5)
        for buffer, total in zip(buffers, totals):
            np.testing.assert_allclose(_host(buffer), total, rtol=1e-5, atol=1e-5)
    # The first buffer from its second call on; the other when that one had paid.
    assert _numbers(compiled) == (2, 2 + 1 + 9 + 3 + 1 + 1)


def test_a_misaligned_buffer_is_changed_all_the_same(gpu: Any) -> None:
    device, backend = gpu
    compiled = _accumulate(device)
    weight = _weights(device)[0]
    block = backend.xp.asarray(np.zeros(4 * WIDTH + 1, np.float32))
    kind = TensorType(DType.float32, [4, WIDTH], device)
    buffer = Tensor.wrap(block[1:].reshape(4, WIDTH), kind)
    x = np.ones((4, WIDTH))
    for number in range(1, 4):
        compiled(buffer, _gpu(x, device), weight)
        expected = number * _network_oracle(x, [weight] * LAYERS)
        np.testing.assert_allclose(_host(buffer), expected, rtol=1e-5, atol=1e-5)
    assert _numbers(compiled) == (0, 0)


def test_large_arguments_at_another_address_are_recorded_again(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, _ = gpu
    monkeypatch.setattr("maxmod.runtime.recording.DIRECT_NBYTES", 100)
    compiled, weights = _compiled(device)
    rng = np.random.default_rng(3)
    kept = [_gpu(rng.standard_normal((4, WIDTH)), device) for _ in range(2)]
    for which in (0, 0, 1, 0, 0):
        expected = _network_oracle(_host(kept[which]), weights)
        result = compiled(kept[which], *weights)
        np.testing.assert_allclose(_host(result), expected, rtol=1e-5, atol=1e-6)
    assert _numbers(compiled) == (1, 3)


def test_too_much_to_copy(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device, _ = gpu
    monkeypatch.setattr("maxmod.runtime.recording.COPIED_NBYTES", 10)
    compiled, weights = _compiled(device)
    for _ in range(3):
        _check(compiled, weights, np.ones((3, WIDTH)), device)
    assert _numbers(compiled) == (0, 0)


# ---- steps that cannot be recorded ---------------------------------------------------------------


def test_an_op_parts_the_steps(gpu: Any) -> None:
    """Sorting is not a generated kernel; the steps before and after it are recorded."""
    device, _ = gpu
    weights = _weights(device)

    def fn(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = _network(x, weights)
        ordered = F.argsort(first.reshape([-1]))
        second = _network(first, weights)
        view = second.permute([1, 0])
        return (
            _network(second * F.cast(ordered.reshape([4, WIDTH]), DType.float32), weights),
            view,
            first,
        )

    kind = TensorType(DType.float32, [4, WIDTH], device)
    names = {f"w{n}": weight for n, weight in enumerate(weights)}
    compiled = compile_function(fn, [kind], name="f", parameters=names)
    rng = np.random.default_rng(4)
    for number in range(4):
        x = rng.standard_normal((4, WIDTH))
        first = _network_oracle(x, weights)
        second = _network_oracle(first, weights)
        ordered = np.argsort(first.reshape(-1).astype(np.float32)).reshape(4, WIDTH)
        expected = _network_oracle(second * ordered, weights), second.T, first
        for found, wanted in zip(compiled(_gpu(x, device)), expected, strict=True):
            np.testing.assert_allclose(_host(found), wanted, rtol=1e-4, atol=1e-5)
        assert _numbers(compiled) == (2 * min(number, 1), 2 * number)


def _parts(compiled: CompiledModel) -> list[bool]:
    """What the last program does, in order: True for recorded steps, False for others."""
    program = [*compiled._programs.values()][-1]
    return [isinstance(action, Segment) for action in program.actions]


def test_branches_and_loops_part_the_steps(gpu: Any) -> None:
    """The host decides in each call which branch is taken and how often a loop runs: never while
    something is recorded. Conditions that differ from call to call give different results.
    """
    device, _ = gpu
    weights = _weights(device)

    def fn(x: Tensor, total: Tensor) -> Tensor:
        h = _network(x, weights)
        (h,) = F.cond(
            F.sum(x, axis=None)[0] > 0, [h.type], lambda: h * 2 - 1, lambda: _network(h, weights)
        )
        h = _network(h, weights)
        F.buffer_store(total, total + h)
        (h, _) = F.while_loop(
            [h, F.sum(x, axis=None)[0]], lambda h, n: n > 2, lambda h, n: [h + 1, n - 2]
        )
        return _network(h, weights)

    kinds = [
        TensorType(DType.float32, [4, WIDTH], device),
        BufferType(DType.float32, [4, WIDTH], device),
    ]
    names = {f"w{n}": weight for n, weight in enumerate(weights)}
    compiled = compile_function(fn, kinds, name="f", parameters=names)
    wanted_total = np.zeros((4, WIDTH))
    total = _gpu(wanted_total, device)
    for number, level in enumerate([0.04, -0.3, 0.11, 0.11, -0.3, 0.02, 0.2]):
        x = np.full((4, WIDTH), level)
        h = _network_oracle(x, weights)
        h = h * 2 - 1 if level > 0 else _network_oracle(h, weights)
        h = _network_oracle(h, weights)
        wanted_total += h
        left = 4 * WIDTH * level
        while left > 2:
            h, left = h + 1, left - 2
        found = compiled(_gpu(x, device), total)
        np.testing.assert_allclose(_host(found), _network_oracle(h, weights), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(_host(total), wanted_total, rtol=1e-4, atol=1e-5)
        assert _numbers(compiled) == (3 * min(number, 1), 3 * number)
    parts = _parts(compiled)
    assert parts.count(True) == 3
    assert [*map(bool, np.diff(parts))].count(True) == 4, "the two ops stand between the three"


def test_a_size_in_the_data_parts_the_steps(gpu: Any) -> None:
    """The steps after it run in a program for each value, which has separate recordings."""
    device, _ = gpu
    weights = _weights(device)

    def fn(x: Tensor) -> tuple[Tensor, Tensor]:
        h = _network(x, weights)
        rows = F.nonzero(h[:, 0] > 0, "k")
        chosen = F.gather(h, rows[:, 0], axis=0)
        return _network(chosen * 2, weights), h

    names = {f"w{n}": weight for n, weight in enumerate(weights)}
    kind = TensorType(DType.float32, [12, WIDTH], device)
    compiled = compile_function(fn, [kind], name="f", parameters=names)
    rng = np.random.default_rng(8)
    xs = [rng.standard_normal((12, WIDTH)) * 3 for _ in range(3)]
    counts = set()
    for which in (0, 1, 0, 2, 1, 0, 2, 2, 1):
        h = _network_oracle(xs[which], weights)
        chosen = h[h[:, 0] > 0]
        counts.add(len(chosen))
        found, first = compiled(_gpu(xs[which], device))
        assert found.shape == [len(chosen), WIDTH]
        np.testing.assert_allclose(
            _host(found), _network_oracle(chosen * 2, weights), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(_host(first), h, rtol=1e-5, atol=1e-6)
    assert len(counts) > 1
    assert compiled.stats.recordings == len(counts)
    assert compiled.stats.replays == 9 - len(counts)


def test_steps_that_refuse_recording_run_one_by_one(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """CuPy's cuBLAS refuses to be recorded."""
    device, backend = gpu
    monkeypatch.setattr(cublaslt, "load", lambda major: None)
    monkeypatch.setattr(backend, "_multipliers", {})
    compiled, weights = _compiled(device)
    with maxmod.configure(debug=1):
        for _ in range(4):
            _check(compiled, weights, np.ones((12, WIDTH)), device)
    assert _numbers(compiled) == (0, 0)
    assert caplog.text.count("no CUDA graph: NotImplementedError") == 1
    assert compiled.stats.recordings_refused == 1
    assert compiled.stats.products_fallen_back == 4 * LAYERS
    summary = compiled.explanation(width=200).summary()
    assert "slower than planned, 1 time: no CUDA graph: NotImplementedError" in summary
    assert f"slower than planned, {4 * LAYERS} times: a product went through CuPy" in summary
    assert not [stream for stream in backend.cuda.streams() if stream.recorded is not None]


def test_views_of_views_of_an_argument_are_recorded(gpu: Any) -> None:
    """A stack of weights in one argument: slices and transposes give no memory back."""
    device, _ = gpu
    stack = np.stack([_host(weight) for weight in _weights(device)])
    kinds = [
        TensorType(DType.float32, ["n", WIDTH], device),
        TensorType(DType.float32, stack.shape, device),
    ]

    def fn(x: Tensor, stack: Tensor) -> Tensor:
        return _network(x, [stack[number] for number in range(LAYERS)])

    compiled = compile_function(fn, kinds, name="f", parameters={})
    x = np.random.default_rng(6).standard_normal((3, WIDTH))
    expected = _network_oracle(x, _weights(device))
    for number in range(3):
        found = compiled(_gpu(x, device), _gpu(stack, device))
        np.testing.assert_allclose(_host(found), expected, rtol=1e-5, atol=1e-6)
        assert _numbers(compiled) == (min(number, 1), number)


def test_plans_refused_in_a_capture_are_asked_for_again(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument that is aligned to less has a plan; its copy in the recording needs another."""
    device, backend = gpu
    library = backend.cuda.products
    ask = library.cublasLtMatmulAlgoGetHeuristic
    monkeypatch.setattr(
        library,
        "cublasLtMatmulAlgoGetHeuristic",
        lambda *args: 14 if backend.cuda.get_current_stream().is_capturing() else ask(*args),
    )
    monkeypatch.setattr(backend, "_multipliers", {})
    rng = np.random.default_rng(6)
    # Layers of different sizes, or the plan of the second one would do for the copy.
    weights = [
        _gpu(rng.standard_normal(n) / 4, device) for n in ((2 * WIDTH, WIDTH), (WIDTH, 2 * WIDTH))
    ]
    kinds = [TensorType(DType.float32, ["n", WIDTH], device), *[w.type for w in weights]]
    compiled = compile_function(
        lambda x, *rest: _network(x, rest), kinds, name="layers", parameters={}
    )
    x = rng.standard_normal((12, WIDTH))
    block = backend.xp.asarray(np.zeros(12 * WIDTH + 64, np.float32))
    start = (-block.ctypes.data % 256 + 4) // 4
    block[start : start + x.size] = backend.xp.asarray(x.astype(np.float32)).reshape(-1)
    kind = TensorType(DType.float32, x.shape, device)
    shifted = Tensor.wrap(block[start : start + x.size].reshape(x.shape), kind)
    expected = _network_oracle(x.astype(np.float32), weights)
    for _ in range(5):
        found = compiled(shifted, *weights)
        np.testing.assert_allclose(_host(found), expected, rtol=1e-5, atol=1e-6)
    stats = compiled.stats
    assert (stats.recordings_refused, stats.recordings, stats.replays) == (1, 1, 3)
    assert stats.products_fallen_back == 0


def test_a_refused_recording_is_tried_again(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else may have been in the way; after three refusals, nothing is tried."""
    device, _ = gpu
    rng = np.random.default_rng(7)
    for refusals, numbers in ((2, (1, 2)), (9, (0, 0))):
        compiled, weights = _compiled(device)
        left = [refusals]
        begin = FakeStream.begin_capture

        def capture(stream: FakeStream, left: list[int] = left, begin: Any = begin) -> None:
            left[0] -= 1
            if left[0] >= 0:
                raise RuntimeError("cudaErrorStreamCaptureUnsupported")
            begin(stream)

        with monkeypatch.context() as patch:
            patch.setattr(FakeStream, "begin_capture", capture)
            for _ in range(5):
                _check(compiled, weights, rng.standard_normal((12, WIDTH)), device)
        assert _numbers(compiled) == numbers
        assert compiled.stats.recordings_refused == min(refusals, 3)


def test_dropped_recordings_give_memory_back(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are pushed out, those of a dropped model, and those that failed."""
    device, backend = gpu
    monkeypatch.setattr("maxmod.runtime.recording.KEPT", 1)
    monkeypatch.setattr("maxmod.runtime.recording.PAYING", 1)
    gc.collect()
    backend.cuda._pool.free_all_blocks()
    before = FakePool.held
    compiled = _accumulate(device, 12)
    weight = _weights(device)[0]
    x = np.random.default_rng(8).standard_normal((12, WIDTH))
    buffers = [_gpu(np.zeros((12, WIDTH)), device) for _ in range(2)]
    held = []
    for which in (0, 0, 0, 1, 1, 1, 0, 0):
        compiled(buffers[which], _gpu(x, device), weight)
        backend.cuda._pool.free_all_blocks()
        held.append(FakePool.held - before)
    assert compiled.stats.recordings == 3
    assert held[1] > 0
    assert held[-1] == held[1], "the memory of one recording"
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "_check_views", lambda *args: 1 / 0)
        third = _gpu(np.zeros((12, WIDTH)), device)
        for _ in range(2):
            compiled(third, _gpu(x, device), weight)
    assert compiled.stats.recordings_refused == 1
    backend.cuda._pool.free_all_blocks()
    assert FakePool.held - before == held[1]
    del compiled
    gc.collect()
    assert FakePool.held == before


def test_two_callers_taking_turns_replay(gpu: Any) -> None:
    """Two caches that live at the same time: each has its own graph."""
    device, _ = gpu
    compiled = _accumulate(device)
    weight = _weights(device)[0]
    x = np.random.default_rng(9).standard_normal((4, WIDTH))
    step = _network_oracle(x, [weight] * LAYERS)
    buffers = [_gpu(np.zeros((4, WIDTH)), device) for _ in range(2)]
    for number in range(1, 21):
        for buffer in buffers:
            compiled(buffer, _gpu(x, device), weight)
            np.testing.assert_allclose(_host(buffer), number * step, rtol=1e-5, atol=1e-5)
    assert compiled.stats.recordings == 2
    assert compiled.stats.replays >= 25


def test_short_texts_do_not_end_recording(gpu: Any) -> None:
    """Many short texts, each with a cache of its own, then a long one."""
    device, _ = gpu
    compiled = _accumulate(device)
    weight = _weights(device)[0]
    x = np.zeros((4, WIDTH))
    buffers = [_gpu(np.zeros((4, WIDTH)), device) for _ in range(12)]
    for buffer in buffers:
        for _ in range(3):
            compiled(buffer, _gpu(x, device), weight)
    before = compiled.stats.replays
    for _ in range(10):
        compiled(buffers[-1], _gpu(x, device), weight)
    assert compiled.stats.replays == before + 5


# ---- threads and streams -------------------------------------------------------------------------


def test_threads(gpu: Any) -> None:
    device, _ = gpu
    compiled, weights = _compiled(device)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(6):
                _check(compiled, weights, rng.standard_normal((1 + seed % 2, WIDTH)), device)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert compiled.stats.calls == 24
    assert compiled.stats.recordings >= 2


def test_a_call_on_another_stream_waits_for_the_last_one(gpu: Any) -> None:
    """They use the same arena, and the same memory of the graph."""
    device, _ = gpu
    compiled, weights = _compiled(device)
    x = np.ones((2, WIDTH))
    first, second = FakeStream(non_blocking=True), FakeStream(non_blocking=True)
    for stream, expected in [(first, []), (first, []), (second, [first]), (first, [second])]:
        stream.waits.clear()
        with stream:
            _check(compiled, weights, x, device)
        assert stream.waits == expected
    assert compiled.stats.replays == 3


@pytest.mark.parametrize("name", ["tied", "bfloat16"])
def test_gpt2(gpu: Any, name: str) -> None:
    device, _ = gpu
    model = load_model(FIXTURES / name, device=device, dtype=DType.float32)
    compiled = model.module.compile(model.tokens_type)
    with np.load(FIXTURES / name / "golden.npz") as data:
        for number in (0, 0, 1, 1, 0, 1):
            tokens = Tensor(data[f"input_ids_{number}"], device=CPU()).to(device)
            logits = compiled(tokens).to(CPU()).to_numpy()
            np.testing.assert_allclose(logits, data[f"logits_{number}"], rtol=0, atol=1e-4)
    assert compiled.stats.replays >= 3


OPTIONS = {
    "greedy": {},
    "sampled": {
        "temperature": 1.3,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "seed": 3,
    },
}


@pytest.mark.parametrize("folder", ["gpt2/tied", "llama/chat"])
def test_a_decoding_step_is_one_graph(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Tokens are chosen and fed back on the device, and the position is read by kernels.

    The host starts a graph for each token, then reads the token before it; after the last token
    there is nothing to start. Tokens are those of the model op by op on the host.
    """
    device, backend = gpu
    folders = FIXTURES.parent / folder
    model = load_model(folders, device=device, dtype=DType.float32)
    host = load_model(folders, device=CPU(), dtype=DType.float32)
    read: list[int] = []
    copy, asarray = backend.cuda.runtime.memcpyAsync, backend.xp.asarray
    launches: list[FakeGraph] = []
    launch = FakeGraph.launch
    sent: list[int] = []
    monkeypatch.setattr(
        backend.cuda.runtime, "memcpyAsync", lambda *args: read.append(args[2]) or copy(*args)
    )
    monkeypatch.setattr(
        backend.xp, "asarray", lambda x, *k: sent.append(1) or asarray(x, *k), raising=False
    )
    monkeypatch.setattr(FakeGraph, "launch", lambda g, *s: launches.append(g) or launch(g, *s))
    texts = [(prompt, how) for how in OPTIONS for prompt in ([1, 2, 3], [4, 5])]
    for prompt, how in texts:
        options = {**OPTIONS[how], "max_new_tokens": 10, "stop": ()}
        expected = [*generate(host, prompt, **options, eager=True)]
        tokens = generate(model, prompt, **options)
        assert [next(tokens), next(tokens)] == expected[:2]  # one step as it is, one recorded
        kernels = set()
        for number, token in enumerate(expected[2:], 3):
            read.clear(), sent.clear(), launches.clear(), backend.cuda.launches.clear()
            assert next(tokens) == token
            is_last = number == len(expected)
            assert (read, sent, len(launches)) == ([] if is_last else [8], [], not is_last)
            if not is_last:
                kernels.add(len(backend.cuda.launches))
        assert len(kernels) == 1  # all of them in the graph
    step = model.step()
    (program,) = step._programs.values()
    assert [type(action) for action in program.actions] == [Segment]
    # Each text has its own cache; the first call for a cache runs without a recording.
    count = len(texts)
    assert (step.stats.recordings, step.stats.replays) == (count, step.stats.calls - count)


def test_sequences_that_end_while_the_next_step_runs(gpu: Any) -> None:
    """The step was started for all of them; those that are left go on from it."""
    device, _ = gpu
    folder = FIXTURES.parent / "llama/chat"
    model = load_model(folder, device=device, dtype=DType.float32)
    host = load_model(folder, device=CPU(), dtype=DType.float32)
    prompts = [[1, 2, 3], [7], [5, 6]]
    given = {"max_new_tokens": 8, **OPTIONS["sampled"]}
    free = [*generate_batch(host, prompts, stop=(), **given, eager=True)]
    stop = {free[2][0], free[4][2]}  # two of them end early
    expected = [*generate_batch(host, prompts, stop=stop, **given, eager=True)]
    assert [row.count(None) for row in expected].count(0) < len(expected)
    assert [*generate_batch(model, prompts, stop=stop, **given)] == expected


def test_two_conversations_that_take_turns_replay(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a cache, and both live."""
    device, _ = gpu
    monkeypatch.setattr("maxmod.runtime.recording.PAYING", 2)
    model = load_model(FIXTURES / "tied", device=device, dtype=DType.float32)
    host = load_model(FIXTURES / "tied", device=CPU(), dtype=DType.float32)
    given = {"max_new_tokens": 12, "stop": ()}
    prompts = ([1, 2, 3], [4, 5, 6])
    expected = [[*generate(host, prompt, **given, eager=True)] for prompt in prompts]
    texts = [generate(model, prompt, **given) for prompt in prompts]
    found = [*zip(*texts, strict=True)]
    assert [*zip(*found, strict=True)] == [tuple(tokens) for tokens in expected]
    stats = model.step().stats
    assert stats.recordings == 2
    assert stats.replays >= 15
    assert stats.slower == {}


def test_a_decoding_step_with_quantised_weights_is_one_graph(gpu: Any) -> None:
    """The codes are read by our kernels; of the library, nothing is asked."""
    device, backend = gpu
    folder = FIXTURES / "tied"
    model = load_model(folder, device=device, dtype=DType.float32, quantize="int8")
    host = load_model(folder, device=CPU(), dtype=DType.float32, quantize="int8")
    expected = [*generate(host, [1, 2, 3], max_new_tokens=6, stop=(), eager=True)]
    tokens = generate(model, [1, 2, 3], max_new_tokens=6, stop=())
    found = [next(tokens)]
    backend.cuda.products.calls.clear()
    assert [*found, *tokens] == expected
    assert backend.cuda.products.calls == []
    step = model.step()
    (program,) = step._programs.values()
    assert [type(action) for action in program.actions] == [Segment]
    assert step.stats.replays == step.stats.calls - 1
    names = [kernel.name for kernel in step.kernels]
    assert len([name for name in names if name.startswith("quantized_linear")]) >= 3


def test_other_options_need_no_other_graph(gpu: Any) -> None:
    """How tokens are chosen is data: the same program, and the tokens of the host."""
    device, _ = gpu
    folder = FIXTURES.parent / "llama/chat"
    model = load_model(folder, device=device, dtype=DType.float32)
    host = load_model(folder, device=CPU(), dtype=DType.float32)
    for options in (*OPTIONS.values(), {"temperature": 2, "top_p": 0.5, "seed": 5}):
        given = {"max_new_tokens": 3, "stop": (), **options}
        prompts = [[1, 2, 3], [7]]
        found = [*generate_batch(model, prompts, **given)]
        assert found == [*generate_batch(host, prompts, **given)]
    assert len(model._steps) == 2
    assert model.step(batch=2).stats.programs == 1


def test_a_new_cache_length_binds_few_steps(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads the cache is bound again, two kernels in a layer; tokens stay those of the host.

    So is everything after weights were replaced.
    """
    device, _ = gpu
    folder = FIXTURES.parent / "llama/chat"
    model = load_model(folder, device=device, dtype=DType.float32)
    host = load_model(folder, device=CPU(), dtype=DType.float32)
    bound: list[object] = []
    bind_now = _Binder._bind_now
    monkeypatch.setattr(
        _Binder, "_bind_now", lambda self, step: bound.append(step) or bind_now(self, step)
    )
    for length in (64, 128, 192):
        monkeypatch.setattr("maxmod.generate.decoding.ROWS", length)
        for prompt in ([1, 2, 3], [9, 8]):
            expected = [*generate(host, prompt, max_new_tokens=4, stop=(), eager=True)]
            assert [*generate(model, prompt, max_new_tokens=4, stop=())] == expected
    steps, layers = len(model.step()._schedule.steps), model.cache_shape.layers
    assert model.step().stats.programs == 3
    decode = model.step()
    bound.clear()
    cache, sampler = model.empty_cache([0], 320), model.new_sampler(Sampling(), [[1]])
    decode(cache, sampler)
    assert len(bound) <= 2 * layers + 2
    decode.load_state(decode.weights)
    bound.clear()
    decode(cache, sampler)
    assert len(bound) == steps
