"""NVIDIA GPUs: CuPy for single ops, NVRTC for kernels, cuBLASLt for products, CUDA graphs."""
