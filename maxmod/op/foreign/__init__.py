"""Names and keywords that people bring from PyTorch and NumPy, and what to write here."""
