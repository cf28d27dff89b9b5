"""`max.experimental.nn.common_layers`: layers of transformers, on a mesh of one device."""
