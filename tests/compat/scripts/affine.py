from max.experimental.tensor import Tensor
from max.nn.module_v3 import Module, module_dataclass


@module_dataclass
class Affine(Module):
    weight: Tensor
    bias: Tensor | int = 0

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


affine = Affine(Tensor.zeros([5, 4]))
print(affine)
print(affine(Tensor.constant([1, 2, 3, 4])))
