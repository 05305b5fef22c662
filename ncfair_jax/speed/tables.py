"""The benchmark's result as Markdown."""

from collections.abc import Sequence

from ncfair_jax.speed.contestants import Result

NAMES = {
    "ncfair_jax": "ncfair_jax (packed rows)",
    "torch_release": "PyTorch, as released",
    "torch_fair": "PyTorch, padded to the longest",
}


def markdown(result: Result) -> str:
    """All tables of `compare.run`."""
    parts = [
        f"{provenance(result)} Medians over rounds, range in brackets; a ratio is how many times less ncfair_jax takes."
    ]
    for training in result["training"]:
        parts += [f"## Training, {training['batch_size']} sentences a step", training_table(training)]
    parts += [
        "## Extra time for NC3, and for reading collapse as it trains",
        nc3_table(result["nc3_cost"]),
        "## CrowS-Pairs",
        scoring_table(result["crows_pairs"]),
    ]
    return "\n\n".join(parts) + "\n"


def provenance(result: Result) -> str:
    """Model, machine and versions, in a sentence."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"Model {result['settings']['model']}, {machine['processor']}, {machine['cores']} cores; Python {machine['python']}, "
        f"{versions}."
    )


def training_table(training: Result) -> str:
    """One row a contestant, and a line on the bare matrix product."""
    header = ["", "sentences/s", "tokens/s", "step s", "pads", "GFLOP a step", "GFLOP/s", "of bare product", "peak MiB"]
    header += ["speed ratio", "FLOP ratio", "memory ratio"]
    rows = []
    for name, figures in training["contestants"].items():
        ratio = training["ratios"].get(name)
        rows.append(
            [
                NAMES[name],
                ranged(figures["sentences_per_second"]),
                ranged(figures["tokens_per_second"]),
                ranged(figures["step_seconds"]),
                percent(figures["pad_fraction"]),
                f"{figures['flops_per_step'] / 1e9:.1f}",
                ranged(figures["gflops_per_second"]),
                percent(figures["fraction_of_matmul"]),
                f"{figures['peak_mib']:.0f}",
                *(
                    (ranged(ratio["speed"]), f"{ratio['flops']:.2f}", f"{ratio['memory']:.2f}")
                    if ratio
                    else ("", "", "")
                ),
            ]
        )
    ours = training["contestants"]["ncfair_jax"]
    bare = ", ".join(f"{name} {ranged(rate)}" for name, rate in training["matmul_gflops"].items())
    note = (
        f"Bare float32 matrix product, GFLOP/s: {bare}. XLA counts {ours['xla_flops_per_step'] / 1e9:.1f} GFLOP a step of "
        f"ours; its {ours['programs']} programs took {ours['compile_seconds']:.0f} s to compile, once, outside the timing."
    )
    return table(header, rows) + "\n\n" + note


def nc3_table(costs: Sequence[Result]) -> str:
    """One row a batch size."""
    header = ["sentences a step", "step s without", "NC3, paper settings", "NC3, aligned settings", "reading collapse"]
    return table(
        header,
        [
            [
                str(cost["batch_size"]),
                ranged(cost["step_seconds_without"]),
                f"{100 * cost['extra']['paper']:+.1f}%",
                f"{100 * cost['extra']['aligned']:+.1f}%",
                f"{100 * cost['tracking']:+.1f}% (every {cost['tracking_every']} steps)",
            ]
            for cost in costs
        ],
    )


def scoring_table(scoring: Result) -> str:
    """One row a contestant, ours also on more pairs."""
    header = ["", "pairs", "pairs/s", "peak MiB", "speed ratio", "FLOP ratio", "memory ratio"]
    rows = []
    for name, figures in scoring["contestants"].items():
        ratio = scoring["ratios"].get(name)
        cells = (ranged(ratio["speed"]), f"{ratio['flops']:.2f}", f"{ratio['memory']:.2f}") if ratio else ("", "", "")
        rows.append(
            [
                NAMES[name],
                str(scoring["pairs"]),
                ranged(figures["pairs_per_second"]),
                f"{figures['peak_mib']:.0f}",
                *cells,
            ]
        )
    larger = scoring["larger"]
    rows.append(
        [NAMES["ncfair_jax"], str(larger["pairs"]), ranged(larger["pairs_per_second"]), f"{larger['peak_mib']:.0f}"]
    )
    note = f"{scoring['rows']} masked rows in {scoring['pairs']} pairs."
    for ratio in scoring["ratios"].values():
        note += f" Largest difference of a log-probability between the two: {ratio['largest_difference']:.1e} nats."
        note += f" On {larger['pairs']} pairs ours is {ratio['speed_on_larger']:.1f} times as fast a pair."
    return table(header, rows) + "\n\n" + note


def accelerator_table(result: Result) -> str:
    """The table of `accelerator.time_train_step`."""
    header = [
        "model",
        "tokens a row",
        "rows",
        "step ms",
        "tokens/s",
        "TFLOP a step",
        "TFLOP/s",
        "of bare product",
        "peak MiB",
    ]
    rows = [
        [
            result["preset"],
            str(item["row_tokens"]),
            str(item["rows"]),
            ranged(item["step_milliseconds"]),
            ranged(item["tokens_per_second"]),
            f"{item['flops_per_step'] / 1e12:.3f}",
            ranged(item["tflops_per_second"]),
            percent(item["fraction_of_matmul"]),
            f"{item['peak_mib']:.0f}",
        ]
        for item in result["steps"]
    ]
    note = (
        f"{result['device']}, {result['dtype']} activations, random weights, synthetic packed rows, MLM + NC3. "
        f"Bare {result['dtype']} matrix product: {result['matmul_tflops']:.3g} TFLOP/s."
    )
    return table(header, rows) + "\n\n" + note + "\n"


def collapse_table(result: Result) -> str:
    """What measuring takes beside what it cannot do without."""
    pairs, nc4, moments = result["pairs"], result["nc4"], result["pass"]
    header = ["", "size", "takes", "bare work", "ratio", "peak MiB"]
    rows = [
        [
            "all pairwise figures",
            f"{pairs['classes']:,} classes × {pairs['width']}",
            f"{pairs['seconds']:.1f} s",
            f"{pairs['product_seconds']:.1f} s (its matrix products)",
            f"{pairs['seconds'] / pairs['product_seconds']:.2f}",
            f"{pairs['peak_mib']:.0f}",
        ],
        [
            "NC4",
            f"{nc4['rows']:,} rows, {nc4['classes']:,} classes × {nc4['width']}",
            f"{ranged(nc4['seconds'])} s",
            f"{ranged(nc4['product_seconds'])} s (its two products)",
            f"{nc4['seconds']['median'] / nc4['product_seconds']['median']:.2f}",
            f"{nc4['peak_mib']:.0f}",
        ],
        [
            "moments pass",
            f"{moments['tokens']:,} tokens",
            f"{ranged(moments['tokens_per_second'])} tokens/s",
            f"{ranged(moments['encoder_tokens_per_second'])} tokens/s (the encoder alone)",
            f"{moments['fraction_of_encoder']['median']:.2f} of the rate",
            f"{moments['peak_mib']:.0f}",
        ],
    ]
    return table(header, rows)


def ranged(values: Result) -> str:
    """Median, and the range in brackets."""
    return f"{number(values['median'])} [{number(values['min'])}, {number(values['max'])}]"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def percent(fraction: float) -> str:
    """A fraction as a whole percentage."""
    return f"{100 * fraction:.0f}%"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; short rows are filled with empty cells."""
    lines = [list(header), ["---"] * len(header)]
    lines += [[*row, *[""] * (len(header) - len(row))] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
