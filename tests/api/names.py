"""The names of the API that maxmod follows, version 25.7, and those for one device of later ones.

Missing names are listed in the documentation with the reason: several devices, MLIR.
"""

from __future__ import annotations

FUNCTIONS = (
    # 25.7
    "abs add allgather allreduce_sum argmax argmin argsort as_interleaved_complex atanh avg_pool2d "
    "band_part broadcast_to buffer_store buffer_store_slice cast chunk concat constant "
    "constant_external conv2d conv2d_transpose conv3d cos cumsum custom div equal erf exp flatten "
    "floor fold functional gather gather_nd gelu greater greater_equal hann_window irfft is_inf "
    "is_nan layer_norm log log1p logical_and logical_not logical_or logical_xor logsoftmax "
    "masked_scatter matmul max max_pool2d mean min mod mul negate nonzero not_equal outer pad "
    "permute pow range relu repeat_interleave reshape round rsqrt scatter scatter_nd sigmoid silu "
    "sin slice_tensor softmax split sqrt squeeze stack sub sum tanh tile top_k transfer_to "
    "transpose trunc unsqueeze where "
    # 26.1
    "arange complex_mul inplace_custom in_graph_context lazy "
    # 26.7
    "acos bottom_k ceil clamp clip cond dequantize distributed_broadcast elementwise_max "
    "elementwise_min ensure_context floor_div full full_like gaussian gaussian_like group_norm "
    "non_maximum_suppression normal normal_like ones ones_like print prod qmatmul rebind "
    "reduce_scatter resize resize_bicubic resize_linear resize_nearest rms_norm roi_align "
    "scatter_add scatter_max scatter_min scatter_mul scatter_nd_add scatter_nd_max scatter_nd_min "
    "scatter_nd_mul shape_to_tensor side_stream uniform uniform_like while_loop zeros zeros_like"
)
NAMES: dict[str, str] = {
    "F": FUNCTIONS,
    "ops": "buffer_load buffer_create call constant constant_external InterpolationMode random",
    "graph_random": "set_seed uniform gaussian normal",
    "Tensor": (
        "from_dlpack constant full zeros ones full_like zeros_like ones_like arange range_like "
        "from_dim type shape rank dtype device driver_tensor storage real realize T item "
        "num_elements to cast reshape permute transpose argmax max mean sum clip squeeze "
        "unsqueeze split broadcast_to min prod to_numpy materialize from_graph_value layout mesh "
        "mapping placements is_distributed num_shards local_shards buffers graph_values "
        "external_name __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ "
        "__rtruediv__ __floordiv__ __rfloordiv__ __mod__ __rmod__ __divmod__ __rdivmod__ __pow__ "
        "__rpow__ __matmul__ __rmatmul__ __neg__ __abs__ __and__ __rand__ __or__ __ror__ __xor__ "
        "__rxor__ __invert__ __eq__ __ne__ __gt__ __ge__ __lt__ __le__ __hash__ __bool__ "
        "__getitem__ __setitem__ __copy__ __deepcopy__ __repr__ __array__ __dlpack__ "
        "__dlpack_device__ __cuda_array_interface__ __await__"
    ),
    "tensor": (
        "Tensor TensorType defaults default_device default_dtype defaults_like driver_tensor_type "
        "contextvar_context"
    ),
    "DType": (
        "size_in_bits size_in_bytes align is_integral is_signed_integral is_unsigned_integral "
        "is_float is_float8 is_half to_numpy from_numpy to_torch from_torch finfo"
    ),
    "driver": (
        "Device CPU Accelerator accelerator_count accelerator_api accelerator_architecture_name "
        "DeviceSpec scan_available_devices load_devices devices_exist set_virtual_device_count "
        "get_virtual_device_count is_virtual_device_mode DeviceStream DeviceQueue DLPackArray "
        "Buffer Tensor"
    ),
    "Device": (
        "label id api architecture_name is_host is_compatible stats default_stream default_queue "
        "can_access synchronize cpu devices"
    ),
    "Buffer": (
        "dtype shape rank num_elements element_size device stream is_contiguous is_host strides "
        "pinned item to copy contiguous view inplace_copy_from to_numpy from_numpy from_dlpack "
        "zeros scalar mmap __getitem__ __setitem__ __repr__ __dlpack__ __dlpack_device__"
    ),
    "graph": (
        "DeviceKind DeviceRef FilterLayout ConvInputLayout Type TensorType BufferType Dim "
        "StaticDim SymbolicDim AlgebraicDim Shape DimLike ShapeLike Graph TensorValue BufferValue "
        "Value Weight TensorValueLike BufferValueLike StrongTensorValueLike ops"
    ),
    "DeviceRef": "CPU GPU to_device is_cpu is_gpu from_device",
    "TensorType": "dtype shape device rank num_elements cast parameters as_buffer",
    "BufferType": "as_tensor",
    "Dim": "parameters substitute",
    "Shape": "rank static_dims is_static parameters",
    "Graph": "current output output_types add_weight",
    "TensorValue": (
        "reshape flatten broadcast_to cast rebind permute transpose to argmax max mean min stdev "
        "var print tensor buffer"
    ),
    "engine": "InferenceSession Model TensorSpec",
    "random": ("uniform gaussian normal uniform_like gaussian_like normal_like seed set_seed"),
    "nn": (
        "Embedding Linear Module Sequential module_dataclass ModuleList GemmaRMSNorm RMSNorm "
        "RotaryEmbedding TransposedRotaryEmbedding Conv2d GroupNorm HyperConnection LayerNorm LoRA "
        "PinnedDeviceTensor TransparentModule as_subgraph lora_layers lora_parameters"
    ),
    "norm": "rms_norm",
    "rope": "theta embed positional_embedding",
    "yarn": ("positional_embedding linear_ramp_mask linear_interpolation length_scaling"),
    "Module": (
        "__call__ forward local_parameters children descendants parameters "
        "apply_to_local_parameters apply_to_parameters map_parameters to device load_state "
        "load_state_dict compile trace __repr__ __rich_repr__"
    ),
    "CompiledModel": (
        "in_layouts in_tree out_layouts out_tree weights execute_raw export_mef engine_model "
        "signal_buffers"
    ),
    "StagedGraph": "in_layouts out_layouts",
}
