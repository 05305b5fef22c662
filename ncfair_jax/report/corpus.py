"""What text a run trained on, in one sentence: each method has fields of its own for it."""

from collections.abc import Mapping
from typing import Any

from ncfair_jax.benchmarks.glue import TITLES
from ncfair_jax.tasks.classification import bios, glue, nli


def training_text(config: Mapping[str, Any]) -> str:
    """A sentence about the text, from a run's config as a dict."""
    method, data = config["objective"]["name"], config["data"]
    swapped = {"one_sided": ", swapped counterfactuals only", "two_sided": ", originals and swapped counterfactuals"}
    swap = swapped.get(data["counterfactual"], "")
    if method == "mabel":
        pairs = config["mabel"]["pairs"]
        origin = "generated from templates" if pairs == "templates" else f"of {pairs}"
        return f"entailment pairs {origin}, with their gender-swapped copies"
    if method == "ase":
        source, path = config["ase"]["source"], data["path"]
        if source == "csv":
            return f"original_data.csv and flipped_data.csv of {path}{swap}"
        names = {"gap": "GAP", "winobias": "WinoBias, development files"}
        return f"{names[source]}{f' ({path})' if path else ''}{swap}"
    if method == "classification":
        return _labelled_text(config["classification"]["task"], data["path"])
    if method == "coref":
        return f"documents with marked coreference, {config['coref']['train']}"
    names = {"gap": "GAP", "text": "text", "hub": "Hub data set"}
    place = " ".join(part for part in (data["path"], data["subset"]) if part)
    return f"{names[data['corpus']]}{f' ({place})' if place else ''}{swap}"


def _labelled_text(task: str, path: str) -> str:
    if task == "bios":
        return f"biographies of Bias-in-Bios ({path or bios.HUB})"
    if task == "bias_nli":
        return f"entailment pairs of {path}" if path else f"entailment pairs of SNLI ({nli.HUB})"
    return f"{TITLES[task]} of GLUE ({path or glue.HUB})"
