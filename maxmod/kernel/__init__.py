"""Kernels as text: their source, the hand-written text in front of it, and the cache on disk."""
