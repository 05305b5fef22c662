"""Language models in JAX, one file a family, and conversion from and to Hugging Face folders."""

from ncfair_jax.models.hf import load_pretrained, save_pretrained
from ncfair_jax.models.inspection import logits

__all__ = ["load_pretrained", "logits", "save_pretrained"]
