"""The groups of the published SEAT and WEAT tests."""

from ncfair_jax.files.seat_files import SHA256


def _numbered(prefix: str, *numbers: str) -> tuple[str, ...]:
    return tuple(prefix + number for number in numbers)


_GENDER, _RACE = ("6", "6b", "7", "7b", "8", "8b"), ("3", "3b", "4", "5", "5b")
_ANGRY = ("angry_black_woman_stereotype", "angry_black_woman_stereotype_b")
# Sentences (SEAT, May et al. 2019) and words (WEAT, Caliskan et al. 2017) apart: they are not of one size. gender, race and
# religion are the groups of bias-bench; "attitude" is about flowers, insects, instruments and weapons, a check that harms
# nobody.
GROUPS: dict[str, tuple[str, ...]] = {
    "gender": _numbered("sent-weat", *_GENDER),
    "gender_words": _numbered("weat", *_GENDER),
    "race": (*_numbered("sent-weat", *_RACE), *_numbered("sent-", *_ANGRY)),
    "race_words": (*_numbered("weat", *_RACE), *_ANGRY),
    "religion": _numbered("sent-religion", "1", "1b", "2", "2b"),
    "double_bind": tuple(name for name in SHA256 if "heilman_double_bind" in name),
    "age": ("sent-weat10",),
    "age_words": ("weat10",),
    "health": ("sent-weat9",),
    "health_words": ("weat9",),
    "attitude": ("sent-weat1", "sent-weat2"),
    "attitude_words": ("weat1", "weat2"),
}
