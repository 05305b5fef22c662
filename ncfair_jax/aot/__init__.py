"""The train step compiled ahead of time for a TPU pod that is not here, and what the compiled program says of it."""
