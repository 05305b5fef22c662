"""README.md of an exported model."""

import json

from ncfair_jax.config import RunConfig, to_dict
from ncfair_jax.methods.training import TrainedRun
from ncfair_jax.registry import method_of
from ncfair_jax.report.markdown import markdown
from ncfair_jax.report.render import escape
from ncfair_jax.report.summary import Summary


def model_card(config: RunConfig, summary: Summary) -> str:
    """What the model was made of and how, and the report of its run without the quoted sentences."""
    method = method_of(config)
    model, text = escape(config.model.path), escape(method.describe(config))
    started = (
        f" The training began with the parameters of {escape(config.model.init_from)}."
        if config.model.init_from
        else ""
    )
    made, weight = "edited" if method.edit else "judged", ""
    if isinstance(config, TrainedRun):
        made, weight = "fine-tuned and edited" if method.edit else "fine-tuned", f"NC3 weight {config.nc3.weight:g}, "
    wrapped = (
        " The method acts when the model is asked: the figures of the benchmarks are with it, the weights here are without it."
        if method.wrap
        else ""
    )
    return (
        f"# {escape(config.name)}\n\n"
        f"{model} {made} with ncfair\\_jax: objective {config.objective.name}, text: {text}, {weight}seed {config.seed}."
        f"{started}{wrapped}\n\n"
        "The benchmarks score stereotypes; their figures are diagnostic, mostly about binary gender in English, and a small "
        "interval says that the figure is precise, not that the model is fair.\n\n"
        f"{markdown(summary, level=2, quotes=False)}\n"
        f"```json\n{json.dumps(to_dict(config), indent=1)}\n```\n"
    )
