import gc
import weakref
from collections import UserDict
from types import SimpleNamespace

import pytest

from nbimg.backends.local import demo_folder
from nbimg.local import manifest, pipelines, texts
from nbimg.local.texts import remembered

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")
pytest.importorskip("diffusers")

CARD = manifest.read(demo_folder())


@pytest.fixture(scope="module")
def pipe():
    return pipelines.Pipelines().get(CARD, "generate", "cpu", "float32")


@pytest.fixture
def asked(pipe, monkeypatch):
    """How many rows the text encoder was asked, call by call."""
    rows, real = [], pipe.text_encoder.forward

    def forward(input_ids, **options):
        rows.append(len(input_ids))
        return real(input_ids, **options)

    monkeypatch.setitem(pipe.text_encoder.__dict__, "forward", forward)
    texts._kept.pop(pipe.text_encoder, None)
    return rows


def generate(pipe, prompts, **more):
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    made = pipe(prompts, generator=generators, num_inference_steps=2, **more).images
    return np.stack([np.asarray(image) for image in made]).astype(int)


PROMPTS = ["a red house", "a blue boat", "a red house", "a red house"]


def test_a_prompt_is_read_once_in_a_batch_and_never_again_after(pipe, asked):
    plain = generate(pipe, PROMPTS)
    assert asked == [4, 4]  # the prompts, and as many empty ones to guide away from
    with remembered(pipe):
        first = generate(pipe, PROMPTS)
        assert asked[2:] == [2, 1]
        again = generate(pipe, PROMPTS)
        other = generate(pipe, [*PROMPTS, "a green star"])
    assert asked[4:] == [1]
    assert abs(first - plain).max() <= 1
    assert (again == first).all()
    assert abs(other[:4] - first).max() <= 1


def test_it_is_exact_for_one_image(pipe, asked):
    plain = generate(pipe, ["a blue boat"])
    for _ in range(2):
        with remembered(pipe):
            assert (generate(pipe, ["a blue boat"]) == plain).all()


def test_after_it_the_encoder_is_as_it_was(pipe, asked):
    before = pipe.text_encoder.__dict__["forward"]
    with pytest.raises(ZeroDivisionError), remembered(pipe):
        raise ZeroDivisionError
    assert pipe.text_encoder.__dict__["forward"] is before
    own = torch.nn.Linear(2, 2)
    with remembered(SimpleNamespace(text_encoder=own, text_encoder_2=None)):
        assert "forward" in own.__dict__
    assert "forward" not in own.__dict__


def test_what_else_decides_is_part_of_what_is_remembered(pipe, asked):
    for salt in ((), ("ink", 1.0), ("ink", 0.5), ("ink", 1.0)):
        with remembered(pipe, salt):
            generate(pipe, ["a tree"], guidance_scale=1.0)
    assert asked == [1, 1, 1]


class Output(UserDict):
    """As the outputs of transformers: a mapping made of keywords."""

    def __init__(self, **fields):
        super().__init__(fields)


class Encoder(torch.nn.Module):
    """Gives whatever it is told to, and counts."""

    def __init__(self, give):
        super().__init__()
        self.give, self.asked = give, []

    def forward(self, ids, attention_mask=None, **options):
        self.asked.append((ids.tolist(), options))
        return self.give(ids.float())


def ask(encoder, ids, **more):
    with remembered(SimpleNamespace(text_encoder=encoder)):
        return encoder(torch.tensor(ids), **more)


def test_outputs_of_every_kind_come_back_as_they_were():
    def give(x):
        return Output(last=x[:, :, None], states=(x, x * 2), nothing=None, cache=object())

    encoder = Encoder(give)
    for _ in range(2):
        out = ask(encoder, [[1, 2], [3, 4], [1, 2]])
        assert type(out) is Output
        assert out["last"].shape == (3, 2, 1)
        assert out["states"][1].tolist() == [[2, 4], [6, 8], [2, 4]]
        assert out["nothing"] is None
    assert len(encoder.asked) == 1
    pair = Encoder(lambda x: (x + 1, x.sum(1)))
    assert [part.tolist() for part in ask(pair, [[1, 2], [3, 4]])] == [[[2, 3], [4, 5]], [3, 7]]
    assert ask(Encoder(lambda x: x + 1), [[1, 2]]).tolist() == [[2, 3]]


def test_rows_that_are_all_new_are_asked_and_given_in_their_order():
    encoder = Encoder(lambda x: x * 10)
    assert ask(encoder, [[1], [2], [3]]).tolist() == [[10], [20], [30]]
    assert encoder.asked[0][0] == [[1], [2], [3]]
    assert ask(encoder, [[3], [4], [1]]).tolist() == [[30], [40], [10]]


def test_masks_and_options_tell_rows_apart():
    encoder = Encoder(lambda x: x)
    ask(encoder, [[1, 2]], attention_mask=torch.tensor([[1, 1]]))
    ask(encoder, [[1, 2]], attention_mask=torch.tensor([[1, 0]]))
    ask(encoder, [[1, 2]], attention_mask=torch.tensor([[1, 0]]), output_hidden_states=True)
    ask(encoder, [[1, 2]], attention_mask=torch.tensor([[1, 1]]))
    assert len(encoder.asked) == 3
    assert encoder.asked[2][1] == {"output_hidden_states": True}


def test_what_is_not_made_of_rows_is_asked_as_ever():
    pictures = Encoder(lambda x: x)
    for _ in range(2):  # two rows of text and three of patches
        ask(pictures, [[1], [2]], pixel_values=torch.zeros(3, 4))
    assert [ids for ids, _ in pictures.asked] == [[[1], [2]]] * 2
    strange = Encoder(lambda x: SimpleNamespace(last=x))
    assert ask(strange, [[1], [1]]).last.tolist() == [[1], [1]]
    assert ask(strange, [[1], [1]]).last.tolist() == [[1], [1]]
    summed = Encoder(lambda x: x.sum())
    assert ask(summed, [[1], [1]]) == 2


def test_it_keeps_so_much_and_forgets_what_was_used_longest_ago(monkeypatch):
    monkeypatch.setattr(texts, "KEPT_BYTES", 64)
    encoder = Encoder(lambda x: x.repeat(1, 2))  # 8 bytes a row
    for number in range(9):
        ask(encoder, [[number]])
    ask(encoder, [[8]])
    assert len(encoder.asked) == 9
    ask(encoder, [[0]])
    assert len(encoder.asked) == 10
    large = Encoder(lambda x: x.repeat(1, 100))
    for _ in range(2):
        ask(large, [[1]])
    assert len(large.asked) == 2


def test_what_is_too_large_to_keep_is_neither_copied_nor_taken_apart(monkeypatch):
    monkeypatch.setattr(texts, "KEPT_BYTES", 100)
    given, seen = [], []

    def forward(input_ids):
        seen.append(len(input_ids))
        given.append({"hidden": torch.arange(len(input_ids) * 100.0).reshape(-1, 100)})
        return given[-1]

    monkeypatch.setattr(torch.Tensor, "cpu", lambda _: pytest.fail("copied"))
    monkeypatch.setattr(texts, "_keys", lambda ids, _salt: [int(row[0]) for row in ids[0]])
    memory = texts._Memory()
    ask = memory.asking(forward, ())
    assert ask(torch.tensor([[1], [2]])) is given[0]
    twice = ask(torch.tensor([[1], [1], [2]]))["hidden"]
    assert seen == [2, 2]
    assert torch.equal(twice, given[1]["hidden"][[0, 0, 1]])


def test_it_dies_with_its_encoder():
    encoder = Encoder(lambda x: x)
    ask(encoder, [[1]])
    gone = weakref.ref(encoder)
    del encoder
    gc.collect()
    assert gone() is None
