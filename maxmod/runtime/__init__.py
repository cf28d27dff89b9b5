"""Running compiled graphs: binding sizes and buffers, launching steps, recording CUDA graphs."""
