from max.dtype import DType
from max.experimental.tensor import Tensor
from max.nn.module_v3 import Embedding

tokens = Tensor.ones([10], dtype=DType.uint64)
assert Embedding(vocab_size=1000, dim=128)(tokens).shape == [10, 128]
assert Embedding(vocab_size=1000, dims=[16, 128])(tokens).shape == [10, 16, 128]
