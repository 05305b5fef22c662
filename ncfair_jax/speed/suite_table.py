"""The suite's result as Markdown."""

from ncfair_jax.speed.contestants import Result
from ncfair_jax.speed.suite_ours import SCORES
from ncfair_jax.speed.tables import number, provenance, ranged, table

HEADER = ["", "requests", "distinct", "cold s", "warm s", "of it scoring s", "requests/s"]
COMPARED = ["PyTorch requests/s", "faster by", "whole run faster by", "fewer operations by", "largest difference"]

BUSY = 0.25  # load average a core; the minute before an idle machine's run leaves less


def suite_table(result: Result) -> str:
    """The table of `suite.run`: one row a benchmark, one for all, and notes."""
    compared = result["settings"]["compare"] == "torch"
    rows = [row(name, benchmark) for name, benchmark in result["benchmarks"].items()]
    rows.append(row("all", result["all"]))
    notes = [
        f"{provenance(result)} Medians over {result['settings']['rounds']} rounds, range in brackets. One process, the model "
        f"loaded once in {result['load_seconds']:.1f} s; {result['all']['cold_programs']} programs compiled by the cold runs, "
        f"{result['all']['warm_programs']} by the warm ones."
    ]
    machine = result["machine"]
    if machine["load_average"] > BUSY * machine["cores"]:
        notes.append(
            f"The machine was busy: load average {machine['load_average']:.1f} on {machine['cores']} cores before the start. "
            "Times and ratios say nothing; repeat on an idle one."
        )
    if compared:
        notes.append(
            "PyTorch scores one row at a time, unpadded, eager attention, logits everywhere (no head for sentence vectors), on "
            f"{machine['torch_threads']} threads (the faster of 1 and its default), "
            f"{result['settings']['sample']} evenly spaced requests of each benchmark; its time is scaled to all requests. "
            '"Faster by" compares that with our scoring, "whole run" with all that ours does: files, tokens, figures, '
            "intervals. Operations, and so their ratio, count all requests; requests are counted before equal ones are "
            "merged. Differences are of log-probabilities in nats, or of vector components."
        )
    notes += [f"Not run: {name}: {reason}" for name, reason in result["refused"].items()]
    return "\n\n".join([table(HEADER + COMPARED * compared, rows), *notes]) + "\n"


def row(name: str, benchmark: Result) -> list[str]:
    """The cells of a benchmark, or of all; those of PyTorch if it took part."""
    cells = [
        name,
        f"{benchmark['requests']:,}",
        f"{benchmark['distinct']:,}",
        number(benchmark["cold_seconds"]),
        ranged(benchmark["seconds"]),
        ranged(benchmark["engine_seconds"]),
        ranged(benchmark["requests_per_second"]),
    ]
    if "speed" not in benchmark:
        return cells
    cells += [ranged(benchmark[figure]) for figure in ("torch_requests_per_second", "speed", "whole_speed")]
    cells.append(f"{benchmark['operations']:.2f}")
    if "largest_difference" in benchmark:
        unit = "nats" if benchmark["engine"] == SCORES else "of a component"
        cells.append(f"{benchmark['largest_difference']:.1e} {unit}")
    return cells
