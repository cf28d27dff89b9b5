"""Values that describe tensors: sizes, shapes, devices, types and layouts. No behaviour."""
