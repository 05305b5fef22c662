"""Published figures of TPU chips, from Google's pages on Cloud TPU.

The pages give the interconnect of a chip in both directions together, over all of its links; here it stands per link and
direction. Memory is in decimal units, as on the pages.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """What a roofline needs of a chip.

    Attributes:
        name: as topologies begin: "v5e:4x4".
        memory_bytes: of high-bandwidth memory.
        memory_rate: bytes/s to and from it.
        matmul_rate: operations/s of bfloat16 matrix products.
        link_rate: bytes/s of one link of the interconnect, in one direction.
        links: of a chip.
        wrap: a side of a slice closes to a ring where its length is a multiple of this.
        slices: shapes of slices that grow from 1 to 256 chips.
        source: where the figures stand.
    """

    name: str
    memory_bytes: float
    memory_rate: float
    matmul_rate: float
    link_rate: float
    links: int
    wrap: int
    slices: tuple[tuple[int, ...], ...]
    source: str


FLAT = ((1, 1), (2, 2), (4, 4), (8, 8), (16, 16))
DEEP = ((1, 1, 1), (2, 2, 1), (2, 2, 4), (4, 4, 4), (4, 8, 8))
PAGE = "https://docs.cloud.google.com/tpu/docs/"

CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", 16e9, 819e9, 197e12, 400e9 / 2 / 4, 4, 16, FLAT, PAGE + "v5e"),
        Chip("v5p", 95e9, 2765e9, 459e12, 1200e9 / 2 / 6, 6, 4, DEEP, PAGE + "v5p"),
        Chip("v6e", 32e9, 1638e9, 918e12, 800e9 / 2 / 4, 4, 16, FLAT, PAGE + "v6e"),
    )
}
