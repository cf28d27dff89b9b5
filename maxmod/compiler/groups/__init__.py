"""Fusion groups, their lowering to scalar instructions, and the order of their work."""
