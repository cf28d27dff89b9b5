"""GGUF files as model folders: their configuration, their tokenizer and their tensors."""
