from max.experimental import Tensor
from max.nn.module_v3 import LayerNorm, Linear, Sequential

model = Sequential(Linear(5, 10), LayerNorm(10), Linear(10, 5))
assert model(Tensor.ones([5])).shape == [5]

sizes = [5, 10, 15, 20]
model = Sequential(*(Linear(a, b) for a, b in zip(sizes, sizes[1:])))  # noqa: RUF007
assert model(Tensor.ones([2, 5])).shape == [2, 20]
