"""ASE's rows: reading, building, encoding under both kinds of vocabulary, and what a batch holds of them."""

import dataclasses
import re

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from ncfair_jax.config import ConfigError
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Pipeline
from ncfair_jax.files import notes
from ncfair_jax.files.reading import DataError
from ncfair_jax.lexicons.lexicon import LexiconError, load_lexicon, make_lexicon
from ncfair_jax.methods.ase.config import AseRun
from ncfair_jax.methods.ase.inputs import direction_rows, fisher_rows
from ncfair_jax.methods.ase.rows import (
    Context,
    EncodedRows,
    encode_rows,
    load_pairs,
    load_rows,
    load_stereotypes,
    made_of,
    mask_pronouns,
    read_pairs,
    rows_of_pairs,
)

WORDPIECE = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "he", "she", "his", "her", "him", "hers"]
WORDPIECE += ["the", "nurse", "##ry", "baker", "##s", "saw", "book", ".", "'", "s", "man", "woman", "-", "to"]


@pytest.fixture(scope="module")
def bert():
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDPIECE)}, model_max_length=40)


@pytest.fixture(scope="module")
def bpe():
    """Byte-level BPE as of RoBERTa: characters, and whole words that begin with their blank."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab = {piece: i for i, piece in enumerate([*specials, "Ġ", *"abcdefghijklmnopqrstuvwxyz.'-"])}
    merges = []
    for word in ("he", "she", "his", "her", "him", "the", "saw", "book", "nurse"):
        piece = "Ġ"
        for letter in word:
            if piece + letter not in vocab:
                merges.append((piece, letter))
                vocab[piece + letter] = len(vocab)
            piece += letter
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    special = dict(zip(names, specials, strict=True)) | {"cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def config(source, path, **data) -> AseRun:
    base = AseRun()
    return dataclasses.replace(
        base,
        ase=dataclasses.replace(base.ase, source=source),
        data=dataclasses.replace(base.data, **{"path": str(path), "counterfactual": "two_sided"} | data),
    )


def write_csv(path, *lines, header="text,pronouns"):
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def write_gap(path, *texts):
    rows = [f"id\t{text}" for text in texts]
    path.write_text("\n".join(["ID\tText", *rows]), encoding="utf-8")
    return path


def test_every_gendered_pronoun_is_masked_and_nothing_else():
    row = mask_pronouns("He's  sure that the Sheriff saw HER and his sister; hers, him himself, she.")
    assert row.text == (
        "[CLS] [MASK]'s sure that the sheriff saw [MASK] and [MASK] sister; [MASK], [MASK] himself, [MASK]. [SEP]"
    )
    assert row.pronouns == ("he", "her", "his", "hers", "him", "she")


def test_gap_gives_each_sentence_with_a_pronoun_and_its_flip(tmp_path):
    path = write_gap(tmp_path / "gap.tsv", "The woman saw her book. The dog ran.", "He left.")
    assert load_pairs(config("gap", path)) == [
        (
            Context("[CLS] the woman saw [MASK] book. [SEP]", ("her",)),
            Context("[CLS] the man saw [MASK] book. [SEP]", ("his",)),
        ),
        (Context("[CLS] [MASK] left. [SEP]", ("he",)), Context("[CLS] [MASK] left. [SEP]", ("she",))),
    ]
    path = write_gap(tmp_path / "gap.tsv", "The book is his.")
    assert load_pairs(config("gap", path))[0][1].pronouns == ("hers",)
    assert load_pairs(config("gap", path, possessives="next_word"))[0][1].pronouns == ("her",)
    neutral = write_gap(tmp_path / "neutral.tsv", "The dog ran.")
    with pytest.raises(DataError, match="no sentence has a gendered pronoun"):
        load_pairs(config("gap", neutral))


def write_winobias(folder):
    for kind in (1, 2):
        for side, pronoun in (("pro", "she"), ("anti", "he")):
            path = folder / f"{side}_stereotyped_type{kind}.txt.dev"
            path.write_text(
                f"1 [The tailor] saw the nurse because [{pronoun}] ran to [ her].\n2 Type {kind}: [{pronoun}].\n"
            )


def test_winobias_takes_its_own_flip_and_only_the_development_files(tmp_path):
    write_winobias(tmp_path)
    text = "[CLS] the tailor saw the nurse because [MASK] ran to [MASK]. [SEP]"
    pairs = load_pairs(config("winobias", tmp_path))
    assert pairs[0] == (
        Context(text, ("she", "her")),
        Context(text, ("he", "her")),
    )  # a swap would have changed the tailor
    assert [pair[0].text for pair in pairs] == [
        text,
        "[CLS] type 1: [MASK]. [SEP]",
        text,
        "[CLS] type 2: [MASK]. [SEP]",
    ]
    (tmp_path / "anti_stereotyped_type2.txt.dev").rename(tmp_path / "anti_stereotyped_type2.txt.test")
    with pytest.raises(DataError, match=r"anti_stereotyped_type2\.txt\.dev: no such file"):
        load_pairs(config("winobias", tmp_path))


def test_winobias_lines_are_checked(tmp_path):
    write_winobias(tmp_path)
    (tmp_path / "pro_stereotyped_type1.txt.dev").write_text("The nurse saw [her].\n2 Type 1: [she].\n")
    with pytest.raises(DataError, match=r"pro_stereotyped_type1\.txt\.dev:1: .* not a number and a sentence"):
        load_pairs(config("winobias", tmp_path))
    (tmp_path / "pro_stereotyped_type1.txt.dev").write_text("1 The nurse saw [her].\n")
    with pytest.raises(DataError, match=r"pro_stereotyped_type1\.txt\.dev has 1 lines and .* has 2"):
        load_pairs(config("winobias", tmp_path))


def test_csv_neighbours_of_a_text_join_where_they_are_complete(tmp_path):
    two, three = "[CLS] [MASK] saw [MASK] [SEP]", "[CLS] [MASK] [MASK] [MASK] [SEP]"
    quoted = '"[CLS] yes, [MASK] [SEP]"'
    write_csv(tmp_path / "original_data.csv", f"{two},he", f"{two},her", f"{quoted},His", f"{three},he", f"{three},his")
    write_csv(
        tmp_path / "flipped_data.csv", f"{two},she", f"{two},him", f"{quoted},her", f"{three},she", f"{three},her"
    )
    assert read_pairs(tmp_path) == [
        (Context(two, ("he", "her")), Context(two, ("she", "him"))),
        (Context("[CLS] yes, [MASK] [SEP]", ("his",)), Context("[CLS] yes, [MASK] [SEP]", ("her",))),
        (Context(three, ("he",)), Context(three, ("she",))),
        (Context(three, ("his",)), Context(three, ("her",))),
    ]
    write_csv(tmp_path / "flipped_data.csv", f"{two},she her")
    with pytest.raises(DataError, match=r"original_data\.csv has 5 rows, flipped_data\.csv 1"):
        read_pairs(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[CLS] [MASK] [SEP]", "2: 1 cell, but the header has 2"),
        ("[MASK] [SEP],he", "2: text '.*' must begin with"),
        ("[CLS] [MASK],he", "2: text '.*' must begin with"),
        ("[CLS] he [SEP],he", "2: text '.*' must begin with"),
        ("[CLS] [MASK] [SEP],", "2: 0 pronouns for 1 masks"),
        ("[CLS] [MASK] [MASK] [MASK] [SEP],he her", "2: 2 pronouns for 3 masks"),
    ],
)
def test_csv_errors_name_file_and_line(tmp_path, line, message):
    write_csv(tmp_path / "original_data.csv", line)
    write_csv(tmp_path / "flipped_data.csv", "[CLS] [MASK] [SEP],he")
    with pytest.raises(DataError, match=rf"original_data\.csv:{message}"):
        read_pairs(tmp_path)


def test_csv_header_and_rows_are_required(tmp_path):
    write_csv(tmp_path / "original_data.csv", "x,y", header="a,b")
    with pytest.raises(
        DataError, match=re.escape("original_data.csv: no column 'text', 'pronouns'; the header has ['a', 'b']")
    ):
        read_pairs(tmp_path)
    write_csv(tmp_path / "original_data.csv")
    with pytest.raises(DataError, match="a header and no rows"):
        read_pairs(tmp_path)


def test_a_malformed_row_takes_its_pair_with_it(tmp_path):
    rows = [f"[CLS] {number} [MASK] [SEP],he" for number in range(100)]
    write_csv(tmp_path / "original_data.csv", *rows)
    write_csv(tmp_path / "flipped_data.csv", *rows[:7], "[CLS] 7 [MASK] [SEP]", *rows[8:])
    with notes.collected() as found:
        pairs = read_pairs(tmp_path)
    assert [first.text.split()[1] for first, _ in pairs] == [str(n) for n in range(100) if n != 7]
    assert all(first == second for first, second in pairs)
    assert [(note.rows, note.lines) for note in found] == [(100, (9,))]
    with pytest.raises(ConfigError, match=r"config\.data\.path is empty; name the folder"):
        load_pairs(config("csv", ""))


def test_sides_and_label_modes():
    a, b = Context("x", ("he", "her", "he")), Context("y", ("she", "him", "she"))
    same = Context("z", ("he",))
    pairs = [(a, b), (same, same), (a, b)]
    assert rows_of_pairs(pairs, "none", "per_mask") == [a, same]
    assert rows_of_pairs(pairs, "one_sided", "per_mask") == [b, same]
    assert rows_of_pairs(pairs, "two_sided", "per_mask") == [a, same, b]
    assert rows_of_pairs(pairs, "two_sided", "same") == [
        Context("x", ("he",)),
        Context("x", ("her",)),
        same,
        Context("y", ("she",)),
        Context("y", ("him",)),
    ]


def words_of(tokenizer, ids) -> list[str]:
    return tokenizer.convert_ids_to_tokens(ids.tolist())


ROW = Context(
    "[CLS] the nurse saw [MASK] book. [SEP] [MASK] saw the nursery, nurses and the baker's-nurse. [SEP]", ("her", "he")
)


def test_encoding_under_wordpiece(bert):
    found = encode_rows([ROW], bert, 40, ["Nurse", "bakers", "baker"])
    (ids,), (masked,), (marked,) = found
    assert words_of(bert, ids)[:10] == ["[CLS]", "the", "nurse", "saw", "her", "book", ".", "[SEP]", "he", "saw"]
    assert ids[-1] == bert.sep_token_id
    assert words_of(bert, ids[masked]) == ["her", "he"]
    # "nursery" and "nurses" begin with the pieces of "nurse" and are other words.
    assert words_of(bert, ids[marked]) == ["nurse", "baker", "nurse"]


def test_every_piece_of_a_word_is_marked_wherever_it_stands(bert):
    row = Context("[CLS] bakers saw [MASK] bakers baker [SEP]", ("him",))
    (ids,), _, (marked,) = encode_rows([row], bert, 40, ["bakers"])
    assert np.flatnonzero(marked).tolist() == [1, 2, 5, 6]
    assert words_of(bert, ids[marked]) == ["baker", "##s", "baker", "##s"]


def test_words_are_marked_where_they_stand_behind_accents_of_their_own(bert):
    row = Context("[CLS] [MASK] saw e\u0301 nurse nurse\u0301 [SEP]", ("her",))
    (ids,), _, (marked,) = encode_rows([row], bert, 40, ["nurse"])
    assert words_of(bert, ids[marked]) == ["nurse"]


def test_encoding_under_byte_level_bpe(bpe):
    (ids,), (masked,), (marked,) = encode_rows([ROW], bpe, 60, ["nurse", "saw"])
    assert words_of(bpe, ids)[:11] == [
        *("<s>", "Ġthe", "Ġnurse", "Ġsaw", "Ġher", "Ġbook", ".", "</s>", "Ġhe", "Ġsaw", "Ġthe")
    ]
    assert words_of(bpe, ids[masked]) == ["Ġher", "Ġhe"]
    assert words_of(bpe, ids[marked]) == ["Ġnurse", "Ġsaw", "Ġsaw", *"nurse"]


def test_one_pronoun_labels_all_masks(bert):
    (ids,), (masked,), _ = encode_rows([ROW._replace(pronouns=("him",))], bert, 40, [])
    assert words_of(bert, ids[masked]) == ["him", "him"]


def test_long_rows_are_cut_and_left_out_without_a_mask(bert):
    long = Context("[CLS] the man saw the nurse [MASK] [SEP]", ("she",))
    with notes.collected() as left_out:
        (ids,), (masked,), (marked,) = encode_rows([long, ROW], bert, 6, ["nurse"])
    assert [(note.limit, note.sequences, note.cut) for note in left_out] == [(6, 2, 2)]
    assert words_of(bert, ids) == ["[CLS]", "the", "nurse", "saw", "her", "[SEP]"]
    assert len(masked) == len(marked) == 6
    with pytest.raises(DataError, match=r"no row has a masked pronoun within data\.max_tokens=6"):
        encode_rows([long], bert, 6, ["nurse"])


def test_pronoun_must_be_a_token(bpe):
    with pytest.raises(DataError, match="pronoun 'hers' is not one token of this vocabulary"):
        encode_rows([Context("[CLS] [MASK] [SEP]", ("hers",))], bpe, 40, [])


def test_stereotype_words_from_json_tabs_and_the_package(tmp_path):
    (tmp_path / "words.tsv").write_text("baker\tpilot\nballet\tpilot\n")
    assert load_stereotypes(str(tmp_path / "words.tsv")) == ("baker", "pilot", "ballet")
    (tmp_path / "words.json").write_text('{"attribute": "x", "groups": {"a": ["baker"], "b": ["pilot"]}}')
    assert load_stereotypes(str(tmp_path / "words.json")) == ("baker", "pilot")
    shipped = load_stereotypes("")
    gender = {word for words in load_lexicon("gender").words for word in words}
    assert len(set(shipped)) == len(shipped) > 50
    assert not gender & set(shipped)  # what names a gender is not a stereotype
    with pytest.raises(LexiconError, match=r"config\.ase\.stereotypes: .*nothing\.tsv: no such file"):
        load_stereotypes(str(tmp_path / "nothing.tsv"))


def test_a_pair_lies_on_one_side_of_the_development_split(tmp_path, bert):
    texts = [f"{a} {b} saw {c}." for a in ("the", "nurse") for b in ("he", "she", "him") for c in ("him", "her")]
    path = write_gap(tmp_path / "gap.tsv", *texts, texts[0])  # a repeated sentence counts once
    train, dev = load_rows(config("gap", path, dev_examples=4), bert, [])
    assert (len(train.sequences), len(dev.sequences)) == (2 * 8, 2 * 4)
    flip = {"he": "she", "she": "he", "him": "her", "her": "him"}
    inside = [tuple(words_of(bert, ids)) for ids in dev.sequences]
    assert all(tuple(flip.get(word, word) for word in words) in inside for words in inside)
    with pytest.raises(ConfigError, match=r"config\.data\.dev_examples=12 leaves nothing of 12 rows"):
        load_rows(config("gap", path, dev_examples=12), bert, [])


def pipeline(bert, **settings) -> tuple[Pipeline, EncodedRows]:
    rows = [
        ROW,
        Context("[CLS] bakers saw [MASK] . [SEP]", ("him",)),
        Context("[CLS] [MASK] saw [MASK] [SEP]", ("he", "her")),
    ]
    found = encode_rows(rows, bert, 40, ["nurse", "bakers"])
    slots = np.full(len(WORDPIECE), 2, np.int32)
    slots[[WORDPIECE.index("her"), WORDPIECE.index("man")]] = 0, 1
    made = Pipeline(
        made_of(found),
        PipelineConfig(seed=0, batch_size=3, row_tokens=40, **settings),
        special_ids=bert.all_special_ids,
        mask_token_id=bert.mask_token_id,
        vocab_size=len(WORDPIECE),
        slot_of_token=slots,
    )
    return made, found


def test_a_batch_masks_the_pronouns_and_marks_the_words(bert):
    made, _ = pipeline(bert)
    for step in (0, 1, 5):
        batch = {name: value[0] for name, value in made.batch(step).items() if value.ndim}
        labels = sorted(words_of(bert, batch["masked_labels"][batch["masked_weights"] > 0]))
        assert labels == ["he", "he", "her", "her", "him"]
        assert (batch["tokens"] == bert.mask_token_id).sum() == 5
        columns = batch["masked_positions"][batch["masked_weights"] > 0]
        rows = np.nonzero(batch["masked_weights"])[0]
        assert (batch["tokens"][rows, columns] == bert.mask_token_id).all()
        marked = sorted(words_of(bert, batch["tokens"][batch["marked"] > 0]))
        assert marked == ["##s", "baker", "nurse", "nurse"]
        assert (batch["slots"] == 0).sum() == 2  # the masked "her" counts as its class
    masked_input = {n: v[0] for n, v in pipeline(bert, labels="input")[0].batch(0).items() if v.ndim}
    assert (masked_input["slots"] == 2).all()


def test_fingerprint_tells_masks_and_marks_apart(bert):
    made, rows = pipeline(bert)
    prints = {made.fingerprint, pipeline(bert)[0].fingerprint}
    assert len(prints) == 1
    for name in ("masked", "marked"):
        first, *others = getattr(rows, name)
        prints.add(made_of(rows._replace(**{name: [~first, *others]})).fingerprint)
    assert len(prints) == 3
    assert len(rows.sequences) == 3


def test_direction_weights_by_hand(bert):
    lexicon = make_lexicon(
        "g", {"f": ["woman", "bakers"], "m": ["man", "book"]}, [("woman", "man"), ("book", "bakers")]
    )
    rows = direction_rows(lexicon, bert, "per_word", 64)
    weight_of = {
        WORDPIECE[token]: weight
        for token, segment, weight in zip(*(rows[n].ravel() for n in ("tokens", "segment_ids", "weights")), strict=True)
        if segment
    }
    assert weight_of == {
        **{"[CLS]": 0, "[SEP]": 0, "woman": -0.5, "man": 0.5, "book": 0.5},
        **{"baker": -0.25, "##s": -0.25},  # two pieces share the word's half
    }
    joined = direction_rows(lexicon, bert, "joined", 64)
    assert joined["segment_ids"].max() == 2
    first = joined["segment_ids"] == 1
    assert words_of(bert, joined["tokens"][first]) == ["[CLS]", "woman", "baker", "##s", "[SEP]"]
    assert joined["weights"][first].tolist() == [0, -0.5, -0.5, -0.5, 0]
    with pytest.raises(LexiconError, match="a text of 5 tokens, the model has positions for 4"):
        direction_rows(lexicon, bert, "joined", 4)
    with pytest.raises(LexiconError, match="3 groups and 0 pairs"):
        direction_rows(make_lexicon("g", {"a": ["x"], "b": ["y"], "c": ["z"]}), bert, "per_word", 64)


def test_fisher_rows_are_single_masked_examples(bert):
    sequences, masked, _ = pipeline(bert)[1]
    rows = fisher_rows(sequences, masked, 2, bert.mask_token_id)  # of three the first and the last
    assert rows["tokens"].shape == (2, len(sequences[0]))
    for row, example in ((0, 0), (1, 2)):
        length = len(sequences[example])
        expected = np.where(masked[example], bert.mask_token_id, sequences[example])
        np.testing.assert_array_equal(rows["tokens"][row, :length], expected)
        assert rows["segment_ids"][row].tolist() == [1] * length + [0] * (len(sequences[0]) - length)
        labels = rows["masked_labels"][row][rows["masked_weights"][row] > 0]
        np.testing.assert_array_equal(labels, sequences[example][masked[example]])
    assert fisher_rows(sequences, masked, 99, bert.mask_token_id)["tokens"].shape[0] == 3
