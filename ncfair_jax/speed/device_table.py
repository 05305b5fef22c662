"""The table of `device.run`: every measurement in its order, those that were skipped or failed by name, aims beside figures."""

from collections.abc import Iterable

from ncfair_jax.speed.contestants import Result
from ncfair_jax.speed.tables import number, percent, table

HEADER = (
    "",
    "tokens/s",
    "step ms",
    "TFLOP/s",
    "of bare product",
    "× padded",
    "× as released",
    "pads",
    "compile s",
    "GiB",
)
BARE_AIM, PADDED_AIM, RELEASED_AIM, COST_AIM = 0.5, 2.0, 8.0, 0.01


def device_table(result: Result) -> str:
    """The whole result as Markdown. Tokens are real ones, and so are ratios; figures that fall short of an aim say so."""
    measured = result["measurements"]
    bare = max((facts["bare_flops"] for facts in result["facts"].values()), default=float("nan"))
    rows = [[name, *cells(found, measured, bare)] for name, found in measured.items()]
    return "\n\n".join([heading(result, bare), table([*HEADER, "remarks"], rows)]) + "\n"


def heading(result: Result, bare: float) -> str:
    """Device, versions, the bare product, and what is missing."""
    facts = list(result["facts"].values())
    devices = " / ".join(dict.fromkeys(each["device"] for each in facts)) or "no device yet"
    versions = ", ".join(f"{name} {text}" for each in facts for name, text in each["versions"].items())
    lacks = f" Not installed: {', '.join(result['missing'])}." if result["missing"] else ""
    return (
        f"{devices}, {versions}. Bare bfloat16 matrix product: {bare / 1e12:.3g} TFLOP/s. Random weights, generated sentences, "
        f"MLM + NC3 (aligned), tokens that are not pads.{lacks}"
    )


def cells(found: Result, measured: dict[str, Result], bare: float) -> list[str]:
    """One line behind its name."""
    empty = [""] * (len(HEADER) - 1)
    for word in ("skipped", "error"):
        if word in found:
            return [*empty, f"{word}: {found[word]}".replace("|", "/").replace("\n", " ")]
    if found["call"] == "kernel":
        return [*empty, kernel_remark(found)]
    if found["call"] == "compile_together":
        return [*empty, f"{found['programs']} programs in {found['together_seconds']:.0f} s, all at the same time"]
    if found["call"] == "costs":
        return [*empty, costs_remark(found)]
    step, rate = found["seconds"]["median"], found["flops"] / found["seconds"]["median"]
    ratios = ratios_of(found, measured)
    shown = [aimed(ratio, aim) if ratio else "" for ratio, aim in zip(ratios, (PADDED_AIM, RELEASED_AIM), strict=True)]
    aim = f" (aim {percent(BARE_AIM)})" if "host" in found else ""
    memory = f"{found['peak_bytes'] / 2**30:.1f}" if found["peak_bytes"] else ""
    return [
        number(found["tokens"] / step),
        f"{1e3 * step:.3g}",
        f"{rate / 1e12:.3g}",
        percent(rate / bare) + aim,
        *shown,
        percent(1 - found["tokens"] / (found["rows"] * found["row_tokens"])),
        f"{found['compile_seconds']:.0f}" if found["compile_seconds"] is not None else "",
        memory,
        training_remark(found),
    ]


def ratios_of(found: Result, measured: dict[str, Result]) -> tuple[float, float]:
    """How many times the real tokens a second of PyTorch, padded and as released, ours are; 0 where there is none."""
    if found["side"] == "torch_device":
        return 0.0, 0.0
    own = found["tokens"] / found["seconds"]["median"]
    theirs = {
        each["style"]: each["tokens"] / each["seconds"]["median"]
        for each in measured.values()
        # The release computes in float32; in bfloat16 it is a line of its own.
        if "style" in each and "tokens" in each and each["preset"] == found["preset"] and
        each["bfloat16"] == (each["style"] == "fair")
    }  # fmt: skip
    return tuple(own / theirs[style] if style in theirs else 0.0 for style in ("fair", "release"))  # type: ignore[return-value]


def aimed(ratio: float, aim: float) -> str:
    """A ratio beside what it should be."""
    return f"{number(ratio)} (aim {aim:g})"


def training_remark(found: Result) -> str:
    """How a step was set up, and what the host costs it."""
    parts = [f"{found['rows']} rows of {found['row_tokens']}"]
    if "attention" in found:
        parts.append(found["attention"])
    if "host" in found:
        parts += [host_remark(found["host"]), profile_remark(found["profile"])]
    return "; ".join(parts)


def host_remark(host: Result) -> str:
    """Of the batches made on the host."""
    if failed := unmeasured("host", host):
        return failed
    return f"a batch takes the host {1e3 * host['batch_seconds']:.3g} ms, {percent(host['hidden'])} of it hidden"


def profile_remark(profile: Result) -> str:
    """Of the device's idle time."""
    return unmeasured("profile", profile) or f"device idle {100 * profile['idle']:.1f}%"


def kernel_remark(found: Result) -> str:
    """Of a check of attention."""
    errors = "; ".join(
        f"{name}: values {100 * error['values']:.2f}%, gradients {100 * error['gradients']:.2f}%"
        for name, error in found["errors"].items()
    )
    verdict = "agrees with xla" if found["agrees"] else "DOES NOT AGREE with xla"
    return f"{verdict} (errors against float32: {errors}; leak {found['leak']:.1g})"


def costs_remark(found: Result) -> str:
    """Of what is added to a step."""
    aim = f"(aim below {percent(COST_AIM)})"
    tracking = unmeasured("tracking", found["tracking"]) or f"tracking {100 * found['tracking']['extra']:+.2f}%"
    reads = unmeasured("host reads", found["host_reads"]) or "no step reads from the device"
    nc3, guard = (f"{100 * found['extra'][name]:+.2f}%" for name in ("nc3", "guarded"))
    return f"NC3 {nc3}, guard and norm {guard}, {tracking} {aim}; {reads}"


def unmeasured(what: str, found: Result) -> str:
    """The words for a part that was skipped or failed; "" if it was measured."""
    reasons: Iterable[str] = (found[word] for word in ("skipped", "error") if word in found)
    return next((f"{what}: {reason}" for reason in reasons), "").replace("|", "/")
