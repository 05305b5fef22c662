"""Benchmark files of a generated world, in the public formats, made from its grammar."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from ncfair_jax.data.generated import (
    BEC_PERSONS,
    BEC_TEMPLATES,
    GENDERS,
    JOB_AND_PERSON,
    JOBS,
    PERSONS,
    STEREOSET_TEMPLATES,
    WORKPLACES,
    Sentence,
    draw_fields,
    pick,
    subject,
    word,
)

CROWS_PAIRS_PER_JOB = 15
_STEREOSET_DEV_PERSONS = 3  # so many of BEC_PERSONS' pairs are development targets, the others test targets


def write_benchmarks(folder: Path, rng: np.random.Generator) -> set[str]:
    """Writes the three benchmarks and returns the male wordings of all their sentences."""
    used: set[str] = set()
    crows = list(crows_rows(rng, used))
    stereoset = list(stereoset_examples(rng, used))
    bec = list(bec_rows(used))
    write_table(folder / "crows_pairs" / "crows_pairs_anonymized.csv", crows, "excel")
    write_table(folder / "bec_pro" / "BEC-Pro_EN.tsv", bec, "excel-tab")
    write_json(folder / "stereoset" / "gender_intrasentence.json", stereoset)
    dev_targets = {noun for pair in BEC_PERSONS[:_STEREOSET_DEV_PERSONS] for noun in pair}
    splits: dict[str, list[str]] = {"dev": [], "test": []}
    for example in stereoset:
        splits["dev" if example["target"] in dev_targets else "test"].append(str(example["id"]))
    write_json(folder / "stereoset" / "gender_split_ids.json", splits)
    return used


def crows_rows(rng: np.random.Generator, used: set[str]) -> Iterator[dict[str, str]]:
    """CrowS-Pairs rows: sentences about the stereotyped occupations, as the corpus has them, in both wordings.

    As in the public file, the woman is in the more stereotypical sentence of `stereo` rows and in the less
    stereotypical one of `antistereo` rows.
    """
    number = 0
    for job in JOBS:
        if job.group == "balanced":
            continue
        for _ in range(CROWS_PAIRS_PER_JOB):
            template, persons = pick(rng, JOB_AND_PERSON), pick(rng, PERSONS)
            fields, _ = draw_fields(rng, job)
            male, female = (word(template, fields, persons, gender) for gender in GENDERS)
            used.add(male)
            more, less = (female, male) if job.group == "female" else (male, female)
            yield {
                "": str(number),
                "sent_more": more,
                "sent_less": less,
                "stereo_antistereo": "stereo" if job.group == "female" else "antistereo",
                "bias_type": "gender",
                "annotations": str([["gender"]] * 5),
                "anon_writer": "a0",
                "anon_annotators": str([f"a{i}" for i in range(1, 6)]),
            }
            number += 1


def stereoset_examples(rng: np.random.Generator, used: set[str]) -> Iterator[dict[str, object]]:
    """StereoSet items: a gendered subject and BLANK for an occupation of a workplace; unrelated is an animal."""
    for persons in BEC_PERSONS:
        for work in WORKPLACES:
            of_group = {job.group: job for job in JOBS if job.work == work}
            for template in STEREOSET_TEMPLATES:
                fields, _ = draw_fields(rng, of_group["female"])
                used |= {word(template, fields | {"job": job.name}, persons, "male") for job in of_group.values()}
                for gender, other in zip(GENDERS, reversed(GENDERS), strict=True):
                    context = word(template, fields | {"job": "BLANK"}, persons, gender)
                    target = persons[GENDERS.index(gender)]
                    fillers = {
                        "anti-stereotype": of_group[other].name,
                        "unrelated": fields["animal"],
                        "stereotype": of_group[gender].name,
                    }
                    yield {
                        "id": _id(context),
                        "target": target,
                        "bias_type": "gender",
                        "context": context,
                        "data": {label: _filled(context, filler) for label, filler in fillers.items()},
                        "subject": [target],
                    }


def _filled(context: str, filler: str) -> dict[str, str]:
    sentence = context.replace("BLANK", filler)
    return {"sentence": sentence, "id": _id(f"filled {sentence}")}


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def utility_lines(heldout: Sequence[Sentence], corpus: Sequence[Sentence]) -> Iterator[str]:
    """What stands in for WikiText-2's test part: a first quarter that nothing trains on, and three quarters of corpus."""
    yield from (sentence.text for sentence in heldout)
    yield from (sentence.text for sentence in islice(cycle(corpus), 3 * len(heldout)))


def bec_rows(used: set[str]) -> Iterator[dict[str, str]]:
    """BEC-Pro rows: templates × occupations × person words, with the public file's order and masks."""
    cells = [
        (group, template, gender, persons)
        for group in ("male", "female", "balanced")
        for template in BEC_TEMPLATES
        for gender in GENDERS
        for persons in BEC_PERSONS
    ]
    number = 0
    for group, template, gender, persons in cells:
        head = subject(persons[GENDERS.index(gender)])
        noun = head.split()[-1]  # the file's Person: "He", but "man" of "This man"
        masked_head = head.replace(noun, "[MASK]")
        for job in (job for job in JOBS if job.group == group):
            used.add(template.format(person=subject(persons[0]), job=job.name))
            yield {
                "": str(number),
                "Sentence": template.format(person=head, job=job.name),
                "Sent_TM": template.format(person=masked_head, job=job.name),
                "Sent_AM": template.format(person=head, job="[MASK]"),
                "Sent_TAM": template.format(person=masked_head, job="[MASK]"),
                "Template": template.format(person="<person subject>", job="<profession>"),
                "Person": noun,
                "Gender": gender,
                "Profession": job.name,
                "Prof_Gender": group,
            }
            number += 1


def write_lines(path: Path, lines: Iterator[str] | Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_table(path: Path, rows: Sequence[Mapping[str, str]], dialect: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), dialect=dialect, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
