"""Text encoders, a file for each family, the blocks that they share, and their heads."""
