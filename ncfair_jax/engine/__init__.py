"""The one forward engine of evaluating and measuring: requests in, answers out, in the order of the requests."""

from ncfair_jax.engine.engine import ClassHead, forward_of
from ncfair_jax.engine.requests import Answer, Forward, Request, RequestError, Wrap

__all__ = ["Answer", "ClassHead", "Forward", "Request", "RequestError", "Wrap", "forward_of"]
