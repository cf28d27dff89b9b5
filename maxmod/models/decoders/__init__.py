"""Families of decoders, a file each, and the blocks that they share."""
