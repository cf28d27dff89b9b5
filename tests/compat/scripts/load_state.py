from max.experimental.tensor import Tensor
from max.nn.module_v3 import Linear, Module, module_dataclass


@module_dataclass
class Affine(Module):
    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


layer = Linear(2, 3)
weights = {"weight": Tensor.zeros([3, 2]), "bias": Tensor.zeros([3])}
layer.load_state(weights.__getitem__)
affine = Affine(weight=Tensor.ones([3, 2]), bias=Tensor.ones([3]))
affine.load_state_dict(weights)
print(layer(Tensor.ones([2])))
print(affine(Tensor.ones([2])))
