from max.experimental.tensor import Tensor
from max.nn.module_v3 import Linear

layer = Linear(5, 10)
assert dict(layer.parameters) == {"weight": layer.weight, "bias": layer.bias}
assert layer(Tensor.ones([5])).shape == [10]
