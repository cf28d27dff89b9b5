"""A project of a user, which must pass `pyright` in strict mode and run."""
