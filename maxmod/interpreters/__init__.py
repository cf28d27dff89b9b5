"""Interpreters of ops: at once on arrays (eager), later (lazy), or recorded as a graph (trace)."""
