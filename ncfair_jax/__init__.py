"""Neural collapse and fairness in masked language models: measure, debias, judge."""

import os

# transformers advises to install PyTorch, which nothing here needs, and would put that line before every message.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
