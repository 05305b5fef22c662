"""Tasks that a model is fine-tuned for, to be judged by them: a method each, whose loss is the task's."""
