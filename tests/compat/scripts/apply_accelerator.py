from max.driver import Accelerator
from max.experimental.tensor import Tensor
from max.nn.module_v3 import Linear, Module, module_dataclass


@module_dataclass
class MLP(Module):
    fc1: Linear
    fc2: Linear

    def __call__(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


single = Linear(2, 3)
single.apply_to_parameters(lambda _, t: t.to(Accelerator()))
mlp = MLP(fc1=Linear(10, 20), fc2=Linear(20, 5))
mlp.apply_to_parameters(lambda name, t: t.to(Accelerator()))
print(*(tensor.device for _, tensor in mlp.parameters))
