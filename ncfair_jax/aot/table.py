"""What a compiled step needs and costs, as text."""

from collections.abc import Iterator

from ncfair_jax.aot.check import Report
from ncfair_jax.aot.collectives import KINDS
from ncfair_jax.sharding import batch_shards


def table(report: Report) -> str:
    """Lines about what was compiled, then a Markdown table of the figures of one device."""
    rows = [("per device", ""), ("---", "---:"), *memory(report), *work(report), *network(report), *times(report)]
    return "\n".join([*heading(report), "", *(f"| {name} | {value} |" for name, value in rows), "", *notes(report)])


def heading(report: Report) -> list[str]:
    """What was compiled."""
    step, chip = report.step, report.slice.chip
    model, train = step.model, step.config.train
    mesh = ", ".join(f"{name}={size}" for name, size in step.mesh.shape.items())
    classes = "no NC3" if step.classes is None else f"NC3 over K={step.classes.num_classes} classes"
    return [
        f"{report.topology}, {step.mesh.size} chips, mesh {mesh}; compiled in {report.compile_seconds:.0f} s "
        f"({report.compile_cpu:.0f} s of all cores together)",
        f"{model.num_layers} layers of width {model.hidden_size}, vocabulary {model.vocab_size}, {model.activation_dtype} "
        f"activations, attention {model.attention}, remat {model.remat}; MLM, {classes}",
        f"an update: {report.rows} rows of {report.row_tokens} tokens in {train.accumulation} micro-batches, "
        f"{report.rows // batch_shards(step.mesh)} rows for each of {batch_shards(step.mesh)} shares of the batch",
        f"chip: {chip.memory_bytes / 1e9:g} GB at {chip.memory_rate / 1e9:g} GB/s, {chip.matmul_rate / 1e12:g} Tflop/s in "
        f"bfloat16, {chip.links} links of {chip.link_rate / 1e9:g} GB/s each way ({chip.source})",
    ]


def memory(report: Report) -> Iterator[tuple[str, str]]:
    """Rows of the compiler's account."""
    held = report.memory
    for name in ("arguments", "temporaries", "results", "program"):
        yield f"memory: {name}", megabytes(getattr(held, name))
    share = held.peak / report.slice.chip.memory_bytes
    yield "memory: peak", f"{megabytes(held.peak)} = {share:.1%} of the chip's"


def work(report: Report) -> Iterator[tuple[str, str]]:
    """Rows of operations and bytes."""
    yield "operations of matrix products", f"{report.operations / 1e9:.4g} G"
    yield "bytes read and written", megabytes(report.bytes)


def network(report: Report) -> Iterator[tuple[str, str]]:
    """A row for each kind of collective, those that can overlap apart."""
    for kind in KINDS:
        for hidden in (False, True):
            chosen = [each for each in report.collectives if each.kind == kind and each.hidden is hidden]
            if chosen:
                count = sum(each.times for each in chosen)
                size = sum(each.times * each.bytes for each in chosen)
                yield f"{kind}{', can overlap' if hidden else ''}", f"{count} of {megabytes(size)} together"


def times(report: Report) -> Iterator[tuple[str, str]]:
    """Rows of the roofline and of the weak scaling."""
    found = report.seconds
    for name in ("arithmetic", "memory", "network", "exposed"):
        told = {"network": "network, all collectives", "exposed": "network, nothing to hide behind"}.get(name, name)
        yield f"time of {told}", f"{1e3 * getattr(found, name):.4g} ms"
    yield "time of a step, at least", f"{1e3 * found.step:.4g} ms"
    for chips, efficiency in (report.scaling or {}).items():
        yield f"weak scaling, chips: {chips}", f"{efficiency:.1%}"


def notes(report: Report) -> list[str]:
    """What the figures rest on."""
    lines = [
        "Times are bounds at published rates, not measurements: arithmetic and memory overlap, a collective hides only where "
        "the program starts it earlier.",
        "Weak scaling keeps the rows a chip and the sizes of all arrays of the collectives; compile for 256 chips to see them.",
    ]
    if report.step.classes is not None:
        lines.append(
            "The classes are drawn ids, as many as the gender lexicon has at most: without a tokenizer there is no K."
        )
    if report.scaling is None:
        lines.append("One chip has no collectives, so no weak scaling follows; compile for several.")
    if report.unknown_loops:
        lines.append(f"{report.unknown_loops} loops have no length in the program; what is in them counts once.")
    return lines


def megabytes(count: float) -> str:
    """Decimal megabytes."""
    return f"{count / 1e6:,.1f} MB"
