"""The NC3 regulariser: words should align with their own embeddings equally well.

It knows no model and no trainer: class moments and classifier rows in, one scalar out, to be put into any loop.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ncfair_jax.collapse.class_stats import ClassStats, check_classifier

SEEN = 1e-6  # a class counts as seen above this; decayed counts never reach zero
TINY = 1e-24  # squared length at or below which a vector has no direction
ROUNDING = 8  # a mean is known to about this many epsilons of its length; nothing smaller is a distance or a direction


def nc3_loss(stats: ClassStats, classifier: Float[Array, "K D"]) -> tuple[Float[Array, ""], dict[str, Array]]:
    """(U)NC3 as a loss: sample standard deviation over seen classes of s_c = cos(mu_c - mu_G, w_c).

    mu_G is the unweighted mean of the seen classes' means; the rows w_c are not centred. Differentiable in both
    arguments and safe everywhere: fewer than two seen classes, or all cosines equal, give 0 with zero gradient; a class
    whose row or centred mean is zero (up to rounding) has cosine 0 and gets no gradient of its own. (The released code
    divides by norm + 2^-23 there, which makes gradients of order 1e6, and returns NaN for fewer than two classes.)

    Args:
        stats: class moments with the current batch already in.
        classifier: output embeddings of the listed words, one row per class.
    Returns:
        The loss (0 to sqrt(2), dimensionless), and without gradients: "nc3" the mean cosine (0 where nothing is seen),
        "classes_seen" their number, "grad_norm" the Frobenius norm of dloss/dclassifier in closed form.
    Raises:
        ValueError: if classifier and stats disagree on classes or width.
    Source: arXiv:2410.04472; Xujxyang/Fairness-NC-main:bec/code/lib (Statistics.similarity).
    """
    check_classifier(stats, classifier)
    seen = stats.count > SEEN  # [K]
    classes = jnp.sum(seen).astype(stats.mean.dtype)
    cosines, has_direction = _cosines(stats.mean, classifier, seen, classes)
    mean_cosine = jnp.sum(cosines) / jnp.maximum(classes, 1)
    deviation = jnp.where(seen, cosines - mean_cosine, 0)
    variance = jnp.sum(jnp.square(deviation)) / jnp.maximum(classes - 1, 1)
    spread = (classes >= 2) & (variance > 0)
    loss = jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1)), 0)

    # dL/dw_c = a_c (u_c - s_c v_c) / |w_c| with a_c = dL/ds_c, and |u - s v|^2 = 1 - s^2 for unit vectors.
    slope = deviation / (jnp.maximum(classes - 1, 1) * jnp.where(spread, loss, jnp.inf))
    length2 = jnp.where(has_direction, jnp.sum(jnp.square(classifier), axis=1), jnp.inf)
    grad_norm = jnp.sqrt(jnp.sum(jnp.square(slope) * jnp.maximum(1 - jnp.square(cosines), 0) / length2))
    aux = {"nc3": mean_cosine, "classes_seen": classes, "grad_norm": grad_norm}
    return loss, jax.lax.stop_gradient(aux)


def _cosines(
    means: Float[Array, "K D"], classifier: Float[Array, "K D"], seen: Bool[Array, "K"], classes: Float[Array, ""]
) -> tuple[Float[Array, "K"], Bool[Array, "K"]]:
    """Cosines of centred means with their rows (0 where undefined or unseen), and where they are defined."""
    global_mean = jnp.sum(jnp.where(seen[:, None], means, 0), axis=0) / jnp.maximum(classes, 1)
    centred = means - global_mean[None, :]
    defined = seen & (jnp.sum(jnp.square(classifier), axis=1) > TINY)
    # Coincident means differ by rounding; the direction of that is noise, and its gradient to the features is 1 / noise.
    noise2 = (ROUNDING * jnp.finfo(means.dtype).eps) ** 2 * jnp.sum(jnp.square(means), axis=1)
    defined = defined & (jnp.sum(jnp.square(centred), axis=1) > jnp.maximum(noise2, TINY))
    # Selected before dividing as well as after: a NaN of the branch not taken would reach the gradient all the same.
    centred = jnp.where(defined[:, None], centred, 1)
    classifier = jnp.where(defined[:, None], classifier, 1)
    lengths = jnp.sqrt(jnp.sum(jnp.square(centred), axis=1)) * jnp.sqrt(jnp.sum(jnp.square(classifier), axis=1))
    return jnp.where(defined, jnp.sum(centred * classifier, axis=1) / lengths, 0), defined
