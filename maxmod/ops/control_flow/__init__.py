"""Branches and loops that depend on data, and sizes that are known only when a graph runs."""
