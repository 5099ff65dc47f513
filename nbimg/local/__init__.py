"""Models on this machine: the pipeline cache, memory, and what may share a call."""
