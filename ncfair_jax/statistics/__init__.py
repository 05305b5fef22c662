"""Intervals and paired tests of figures whose examples come in clusters; it knows no benchmark and imports nothing of ours."""
