"""Speed and memory of training and scoring, measured beside PyTorch on the same machine, sentences and weights.

PyTorch is imported here only, and only by the worker processes that run it.
"""
