from max.driver import Accelerator
from max.nn.module_v3 import Linear

layer = Linear(2, 3)
moved = layer.map_parameters(lambda _, t: t.to(Accelerator()))
print(moved.weight.device)
