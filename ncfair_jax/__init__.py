"""Neural collapse and fairness in masked language models: measure, debias, judge."""
