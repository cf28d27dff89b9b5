"""Names of PyTorch and NumPy that have no place here, and why: the first pattern counts."""

from __future__ import annotations

REASONS: tuple[tuple[str, str], ...] = (
    (
        "hooks are not called; write into forward, or wrap the module",
        "register_*hook",
    ),
    (
        "NumPy, SciPy or PyTorch can compute it of x.to_numpy()",
        "gradient quantile nanquantile *percentile tril_indices* triu_indices* diag_indices* "
        "mask_indices nested_iters nan?*",
    ),
    (
        "this is how PyTorch calls one library or another",
        "cudnn_* miopen_* mkldnn_* fbgemm_* *_copy sym_* Sym* has_* *_ir* native_*",
    ),
    (
        "Python's math module has it",
        "pi e inf nan euler_gamma",
    ),
    (
        "there is no training here: no gradients, losses or optimisers",
        "*Loss *Loss2d *_loss* kl_div *cross_entropy* *backward* *grad* *Grad* retains_* "
        "is_leaf register_hook register_post_* output_nr reinforce *hook* train_* "
        "autocast* *autocast* bernoulli* gumbel* *anomaly* volatile name "
        "LinearCrossEntropyOptions AdaptiveLogSoftmaxWithLoss norm_except_dim renorm "
        "embedding_renorm* is_inference* set_anomaly* GradScaler Gradient",
    ),
    (
        "tensors have no complex dtype; F.complex_mul and F.as_interleaved_complex use pairs",
        "*omplex* cfloat cdouble chalf csingle clongdouble angle conj* imag real* isreal* "
        "*_conj iscomplex* polar view_as_* is_neg *_neg resolve_* sort_complex "
        "real_if_close",
    ),
    (
        "tensors are dense; F.gather and F.scatter_nd select",
        "*sparse* to_dense dense_dim *_indices *indices_copy coalesce is_coalesced values "
        "values_copy smm sspaddmm saddmm dsmm hsmm hspmm spmm *nested* *padded* jagged "
        "strided segment_reduce",
    ),
    (
        "weights are quantised as a whole: maxmod.quantize(model, 'int8')",
        "*quant* q_* qscheme qint* quint* int_repr per_channel* per_tensor* fbgemm* "
        "fake_* choose_qparams* *ScalingType SwizzleType scaled_*mm grouped_mm "
        "dequantize* bits* int1 int2 int3 int4 int5 int6 int7 uint1 uint2 uint3 uint4 "
        "uint5 uint6 uint7 float4* *QInt* *QUInt* index_exp_q",
    ),
    (
        "there are no recurrent layers; a loop in forward, or F.while_loop, repeats a cell",
        "LSTM* GRU* RNN* lstm* gru* rnn* quantized_rnn*",
    ),
    (
        "models of whole transformers are in maxmod.models; "
        "F.scaled_dot_product_attention is the attention",
        "Transformer*",
    ),
    (
        "a tensor lives on one device; maxmod.distributed has groups of processes",
        "is_distributed DataParallel *shard* share_memory* is_shared",
    ),
    (
        "linear algebra beyond products is not here: np.linalg on x.to_numpy()",
        "cholesky* det *det eig* geqrf inverse lobpcg lstsq *lu lu_* ormqr orgqr pinverse "
        "qr svd* symeig triangular_solve solve matrix_exp matrix_rank pca_* linalg cov "
        "corrcoef nuclear_norm *_lowrank",
    ),
    (
        "special functions like this one are not here: SciPy on x.to_numpy()",
        "*gamma* i0* erfinv* polygamma mvlgamma igamma* digamma* lgamma nextafter frexp "
        "ldexp spacing float_power gcd lcm atan* arctan* logaddexp2 exponential_ "
        "geometric_ cauchy_ log_normal_",
    ),
    (
        "NumPy, SciPy or PyTorch can compute it of x.to_numpy()",
        "hist* bincount digitize searchsorted bucketize unique* *1d quantile *percentile "
        "nan* mode cummax cummin cumprod cumulative* logcumsumexp trapz trapezoid "
        "gradient interp* convolve correlate poly* roots vander fft stft istft *_window "
        "hamming blackman bartlett kaiser combinations *setops* *set1d choose piecewise "
        "select apply_over_axes block bmat delete insert trim_zeros resize pack* unpack* "
        "lexsort nditer ndenumerate ndindex nested_iters unravel_index ravel_multi_index "
        "broadcast_shapes corrcoef cross* diag_indices* cumulative_prod geomspace "
        "logspace fromfunction fromiter fromregex fromstring frompyfunc mask_indices tri* "
        "map_* map2_* apply_ rec* matrix as_strided* asmatrix asfortranarray "
        "asarray_chkfinite asfarray ufunc vectorize dist* pdist grid_sample* affine_grid* "
        "unfold* Unfold fractional* Fractional* *unpool* *Unpool* local_response* "
        "LocalResponseNorm CrossMapLRN2d Lazy* max_pool* *_max_pool* randint* randperm "
        "multinomial poisson binomial choice putmask block_diag rot* cumul* *average "
        "sum_to_size Circular* bitwise_count logical_reduce CircularPad*",
    ),
    (
        "integers have no bitwise ops in F; x & y, x | y and ~x are logical, for bool, "
        "and maxmod.array_api has the others",
        "bitwise_* *_shift invert",
    ),
    (
        "tensors have no strides or storages of their own; x.to_numpy() and DLPack give the memory",
        "stride storage* *Storage* *storage set_ data_ptr const_data_ptr is_contiguous "
        "is_set_to is_pinned pin_memory layout *memory_format channels_last* *_format "
        "dim_order record_stream may_share_memory shares_memory flat* base strides memmap "
        "*_Tensor *Tensor typed_storage to_mkldnn as_subclass is_same_size memory_* "
        "index_exp r_ c_ s_",
    ),
    (
        "threads, caches and debugging are set by maxmod.configure and MAXMOD_ variables",
        "*num_threads *interop_threads *determinis* *matmul_precision *flush_denormal "
        "*printoptions *rng_state set_warn* is_warn* errstate seterr* geterr* *bufsize "
        "show_* get_include info test testing *print* setbufsize getbufsize format_* "
        "default_generator Generator thread_safe_generator",
    ),
    (
        "x.dtype says it, for example x.dtype.is_float()",
        "is_floating_point is_signed is_complex result_type promote_types can_cast *_type "
        "common_type isdtype issubdtype min_scalar_type mintypecode typename typing iinfo "
        "isscalar isrealobj iscomplexobj is_tensor is_storage typecodes sctypeDict "
        "ScalarType",
    ),
    (
        "x.device says it, for example x.device == CPU()",
        "is_cpu is_cuda is_xpu is_m* is_xla is_ipu is_vulkan* is_quantized is_meta get_device*",
    ),
    (
        "Python's own numbers and functions do",
        "pi e inf nan euler_gamma emath abs_ little_endian iterable base_repr binary_repr "
        "array2string savetxt character number generic *ing signedinteger integer inexact "
        "flexible void object_ str_ bytes_ strings longdouble float128 complex256 "
        "datetime* timedelta64 busday* is_busday isnat char rec core lib ma exceptions "
        "ctypeslib f2py polynomial",
    ),
    ("layers that PyTorch keeps for old code are not here", "*_v1 Container factory_kwargs"),
    (
        "it belongs to PyTorch or NumPy itself",
        "*",
    ),
)
