"""Folders whose weights another tool quantised: GPTQ, AWQ, FP8 and others."""
