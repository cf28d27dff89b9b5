"""Text of CUDA kernels, from lowered groups."""
