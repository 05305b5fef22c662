"""BERT and RoBERTa encoders, their masked-LM head, and conversion from and to Hugging Face folders."""
