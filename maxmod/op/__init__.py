"""Ops and graphs: what an op is, its type rules, and the graph that tracing records."""
