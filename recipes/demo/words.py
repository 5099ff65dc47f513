"""Text → tokens: a `CLIPTokenizer` whose every grammar word is one token, and its text encoder.

Words outside the grammar fall into letters or into the pieces they share with known words; signs
it has never seen become the end-of-text token. Nothing a user types can make it fail.
"""

import json
import random
import re
import string

import torch
from tokenizers import Tokenizer as Pieces
from tokenizers import models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from recipes.demo import captions, edits, scenes

LENGTH = 24  # tokens in a caption, start and end included
WIDTH = 128
START, END = "<|startoftext|>", "<|endoftext|>"


def known() -> list[str]:
    """Return every word of the grammar, sorted."""
    words = {
        *scenes.KINDS,
        *map(captions.plural, scenes.KINDS),
        *scenes.COLOURS,
        *scenes.TIMES,
        *captions.NUMBERS,
        *captions.FILLERS,
        *edits.words(),
        "a",
        "an",
        "one",
        "the",
        "background",
    }
    phrases = [
        phrase
        for group in (captions.TIME_WORDS, captions.RELATION_WORDS)
        for forms in group.values()
        for phrase in forms
    ]
    phrases += [*captions.OPENINGS, *captions.LANDSCAPE_FORMS, *captions.BACKGROUND_FORMS]
    for phrase in phrases:
        words.update(re.findall("[a-z]+", phrase))
    return sorted(words)


def tokenizer() -> CLIPTokenizer:
    """Build the tokenizer: byte-pair merges learnt from the list of known words."""
    pieces = Pieces(models.BPE(end_of_word_suffix="</w>"))
    pieces.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters = list(string.ascii_lowercase + string.digits + ",.!?'-\":;")
    words = known()
    spelled = [*words * 8, *letters, *(letter + "x" for letter in letters)]
    pieces.train_from_iterator(
        spelled,
        trainers.BpeTrainer(
            vocab_size=4096, min_frequency=2, end_of_word_suffix="</w>", show_progress=False
        ),
    )
    model = json.loads(pieces.to_str())["model"]
    merges = [
        tuple(pair) if isinstance(pair, list) else tuple(pair.split(" "))
        for pair in model["merges"]
    ]
    vocabulary = {START: 0, END: 1}
    for token in sorted(model["vocab"], key=lambda token: model["vocab"][token]):
        vocabulary.setdefault(token, len(vocabulary))
    for letter in letters:
        vocabulary.setdefault(letter, len(vocabulary))
        vocabulary.setdefault(letter + "</w>", len(vocabulary))
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def text_encoder(tokens: CLIPTokenizer) -> CLIPTextModel:
    """Return the untrained text encoder: two layers, 128 wide."""
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            hidden_act="gelu",
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def encode(tokens: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Return token ids, shape (texts, `LENGTH`), padded and cut."""
    made = tokens(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    )
    ids: torch.Tensor = made.input_ids
    return ids


def check(tokens: CLIPTokenizer) -> None:
    """Fail unless each known word is a single token and odd text is harmless."""
    for word in known():
        if len(tokens(word).input_ids) != 3:
            raise AssertionError(f"{word!r} is not one token: {tokens.tokenize(word)}")
    rng = random.Random(0)
    odd = "".join(chr(rng.randrange(32, 0x3000)) for _ in range(200))
    if encode(tokens, [odd, ""]).shape != (2, LENGTH):
        raise AssertionError("odd text changes the shape")
