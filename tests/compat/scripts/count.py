from max.experimental.tensor import Tensor
from max.nn.module_v3 import Linear, Module, module_dataclass


@module_dataclass
class MLP(Module):
    fc1: Linear
    fc2: Linear

    def __call__(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


mlp = MLP(fc1=Linear(10, 20), fc2=Linear(20, 5))
total = sum(parameter.num_elements() for name, parameter in mlp.parameters)
print(f"Total parameters: {total}")
