from max.driver import CPU
from max.nn.module_v3 import Linear

layer = Linear(2, 3)
layer.to(CPU())
print(layer.weight.device)
