"""Code generation: from a fusion group to the text of one kernel."""
