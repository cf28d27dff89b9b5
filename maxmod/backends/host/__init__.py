"""The host: NumPy for single ops, and C kernels that the system's compiler builds."""
