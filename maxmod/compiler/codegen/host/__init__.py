"""Text of host kernels, from lowered groups."""
