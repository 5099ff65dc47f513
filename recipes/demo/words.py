"""Text → tokens: a `CLIPTokenizer` whose every grammar word is one token, and its text encoder.

Words outside the grammar fall into letters or into the pieces they share with known words; signs
it has never seen become the end-of-text token. Nothing a user types can make it fail.
"""

import random
import re
import string
from collections import Counter
from itertools import pairwise

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from recipes.demo import captions, edits, scenes

LENGTH = 24  # tokens in a caption, start and end included
WIDTH = 128
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


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


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Return byte-pair merges that make each word one piece, the commonest pair first.

    Ties go by the alphabet: libraries leave them to chance, and a vocabulary that changes from run
    to run turns trained words into each other.
    """
    spelled = [[*word[:-1], word[-1] + WORD_END] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for pieces in spelled for pair in pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for pieces in spelled:
            for place in range(len(pieces) - 2, -1, -1):
                if (pieces[place], pieces[place + 1]) == best:
                    pieces[place : place + 2] = ["".join(best)]
    return merges


def tokenizer() -> CLIPTokenizer:
    """Build the tokenizer: byte-pair merges learnt from the list of known words."""
    merges = _merges(known())
    signs = string.ascii_lowercase + string.digits + ",.!?'-\":;"
    tokens = [START, END, *signs, *(sign + WORD_END for sign in signs), *map("".join, merges)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
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
