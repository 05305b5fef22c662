"""Debiasing methods: of each its config, its examples and its loss, and the NC3 regulariser that wraps any loss."""
