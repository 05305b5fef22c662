from ncfair_jax.config import DataConfig
from ncfair_jax.methods.corpus import load_sentences


def test_the_swap_reads_possessives_as_the_config_asks(tmp_path):
    (tmp_path / "text.txt").write_text("The car is his.\nShe ran.\n")

    def swapped(**changes):
        return load_sentences(DataConfig(corpus="text", path=str(tmp_path / "text.txt"), **changes), seed=0)[0]

    assert swapped(counterfactual="one_sided") == ["The car is hers.", "He ran."]
    assert swapped(counterfactual="one_sided", possessives="next_word") == ["The car is her.", "He ran."]
    assert swapped() == ["The car is his.", "She ran."]
