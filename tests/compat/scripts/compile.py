from max.dtype import DType
from max.experimental.tensor import Tensor, TensorType, defaults
from max.nn.module_v3 import Module, module_dataclass


@module_dataclass
class Affine(Module):
    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


affine = Affine(weight=Tensor.zeros([10, 5]), bias=Tensor.zeros([10]))
_, device = defaults()
input_type = TensorType(DType.float32, [3, 5], device=device)
model = affine.compile(input_type)
result = model(Tensor.ones([3, 5], dtype=DType.float32))
assert result.shape == [3, 10]
print(result)
