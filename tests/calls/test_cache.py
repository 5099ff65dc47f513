import time

import pytest

import nbimg
from nbimg import session
from nbimg.calls.cache import Cell
from nbimg.errors import OfflineError
from nbimg.session import CallOptions
from nbimg.types import Request, Status


def made(*requests, cell=None, **options):
    requests = [Request(r, model="flux-dev") if isinstance(r, str) else r for r in requests]
    return session.default().submit(requests, CallOptions(cell=cell, **options)).wait()


def fresh_kernel():
    session.default().close()
    session._default = None


def seeded(prompt="a cat", **fields):
    return Request(prompt, model="flux-dev", seed=7, **fields)


def test_a_seeded_request_is_shown_from_the_store_at_no_cost_and_says_so(server):
    first, again = made(seeded())[0], made(seeded())[0]
    assert not first.cached
    assert again.cached
    assert again.cost_usd == 0
    assert again.images == first.images
    assert len(server.jobs) == 1
    assert "cached" in repr(made(seeded()))


def test_it_is_still_there_in_the_next_kernel(server):
    first = made(seeded())[0]
    fresh_kernel()
    assert made(seeded())[0].images == first.images
    assert len(server.jobs) == 1


@pytest.mark.parametrize(
    "other",
    [
        seeded("a dog"),
        seeded(n=2),
        seeded(ar="4:3"),
        seeded(guidance=2.0),
        seeded(params={"output_quality": 50}),
        Request("a cat", model="flux-dev", seed=8),
        Request("a cat", model="qwen-image", seed=7),
    ],
)
def test_whatever_decides_the_pixels_makes_another_picture(server, other):
    made(seeded())
    assert not made(other)[0].cached


def test_an_alias_and_the_full_name_are_one_model(server):
    made(seeded())
    full = seeded().but(model="replicate:black-forest-labs/flux-dev")
    assert made(full)[0].cached


def test_a_file_name_does_not_make_another_picture_but_is_honoured(server):
    first = made(seeded())[0].images[0]
    again = made(seeded(output="cats/{index}.webp"))[0]
    assert again.cached
    assert again.images[0].path.name == "1.webp"
    assert again.images[0].read() == first.read()


def test_another_format_is_converted_from_the_store(server):
    made(seeded())
    again = made(seeded(output="cat.jpg"))[0]
    assert again.cached
    assert again.images[0].mime == "image/jpeg"
    assert again.images[0].pil().format == "JPEG"
    assert len(server.jobs) == 1


def test_a_deleted_file_comes_back_from_the_store_and_a_gone_one_is_made_again(server):
    image = made(seeded())[0].images[0]
    image.path.unlink()
    again = made(seeded())[0]
    assert again.cached
    assert again.images[0].read()
    own = session.default()
    stored = own._workshop().place().store._object_path(image.sha256, image.mime)
    stored.unlink()
    assert not made(seeded())[0].cached
    assert len(server.jobs) == 2


def test_a_picture_that_was_painted_over_is_not_taken_for_the_one_that_was_made(server):
    image = made(seeded())[0].images[0]
    image.path.unlink()
    image.path.write_bytes(b"mine now")
    again = made(seeded())[0]
    assert again.cached
    assert again.images[0].path != image.path
    assert image.path.read_bytes() == b"mine now"


def test_twins_in_one_batch_keep_their_own(server):
    first = made("a cat", "a cat", cell=Cell("c1", 1))
    assert len(server.jobs) == 2
    fresh_kernel()
    again = made("a cat", "a cat", cell=Cell("c1", 1))
    assert [r.images for r in again] == [r.images for r in first]
    assert len({r.images[0].seed for r in again}) == 2


def test_without_a_seed_a_fresh_kernel_shows_what_the_notebook_shows_and_the_next_run_is_new(
    server,
):
    made("a cat", cell=Cell("c1", 1))
    last = made("a cat", cell=Cell("c1", 2))[0]
    assert len(server.jobs) == 2
    fresh_kernel()
    shown = made("a cat", cell=Cell("c1", 1))[0]
    assert shown.cached
    assert shown.images == last.images
    assert not made("a cat", cell=Cell("c1", 2))[0].cached
    assert len(server.jobs) == 3


def test_equal_requests_of_different_cells_keep_their_own(server):
    one = made("a cat", cell=Cell("c1", 1))[0]
    two = made("a cat", cell=Cell("c2", 2))[0]
    fresh_kernel()
    assert made("a cat", cell=Cell("c2", 1))[0].images == two.images
    assert made("a cat", cell=Cell("c1", 2))[0].images == one.images
    assert len(server.jobs) == 2


def test_two_calls_in_one_cell_keep_their_own(server):
    first = [made("a cat", cell=Cell("c1", 1))[0].images for _ in range(2)]
    fresh_kernel()
    again = [made("a cat", cell=Cell("c1", 1))[0].images for _ in range(2)]
    assert again == first


def test_where_cells_have_no_names_equal_requests_are_counted(server):
    first = [made("a cat", cell=Cell("", n))[0].images for n in (1, 2)]
    fresh_kernel()
    again = [made("a cat", cell=Cell("", n))[0].images for n in (1, 2)]
    assert again == first
    assert len(server.jobs) == 2


def test_in_a_plain_program_a_request_without_a_seed_is_always_new(server):
    made("a cat")
    fresh_kernel()
    assert not made("a cat")[0].cached


@pytest.mark.parametrize(("setting", "option"), [("never", None), ("auto", False)])
def test_the_cache_can_be_left_out(server, setting, option):
    made(seeded())
    session.default().settings.set("cache", setting)
    assert not made(seeded(), cache=option)[0].cached


@pytest.mark.parametrize(("setting", "option"), [("always", None), ("auto", True)])
def test_the_cache_can_be_used_always(server, setting, option):
    cell = Cell("c1", 1)
    session.default().settings.set("cache", setting)
    made("a cat", cell=cell, cache=option)
    assert made("a cat", cell=Cell("c1", 2), cache=option)[0].cached


def test_a_failed_request_is_not_kept_as_an_answer(server):
    from nbimg.testing import Outcome

    server.expect(Outcome(status="failed", error="broken"))
    first = made(seeded(), Request("other", model="flux-dev", seed=1), fallback=())
    assert first[0].status is Status.FAILED
    assert not made(seeded())[0].cached


def test_what_a_stand_in_has_made_answers_no_request_that_excludes_it(server):
    from nbimg.testing import Outcome

    server.expect(Outcome(status="failed", error="broken"))
    assert made(seeded())[0].model == "replicate:qwen/qwen-image"
    assert made(seeded())[0].cached
    assert made(seeded(), fallback=("qwen-image",))[0].cached
    alone = made(seeded(), fallback=("imagen-4-ultra",))[0]
    assert (alone.cached, alone.model) == (False, "replicate:black-forest-labs/flux-dev")
    assert made(seeded(), fallback=())[0].cached
    assert made(seeded())[0].images == alone.images


def test_a_task_of_which_a_stand_in_has_made_a_part_is_no_answer_without_it(server):
    from nbimg.testing import Outcome

    server.expect(Outcome(status="failed", error="broken"))
    assert made(seeded(n=2))[0].status is Status.OK
    alone = made(seeded(n=2), fallback=())[0]
    assert not alone.cached
    assert len(server.jobs) == 5


def test_an_edit_is_known_by_the_bytes_of_its_input(server, tmp_path):
    picture = made(seeded())[0].images[0]
    one = nbimg.edit(picture, "make it night", model="flux-kontext-max", seed=1)
    moved = picture.save(tmp_path / "moved.webp")
    two = nbimg.edit(moved, "make it night", model="flux-kontext-max", seed=1)
    assert two[0].cached
    assert two[0].images == one[0].images


def test_retrying_what_failed_makes_it_anew(server):
    from nbimg.testing import Outcome

    server.expect(Outcome(status="failed", error="broken", prompt_has="cat"))
    first = nbimg.generate(["a cat", "a dog"], model="flux-dev", seed=3, fallback=())
    again = first.retry_failed()
    assert [r.status for r in again] == [Status.OK] * 2
    assert again[1] == first[1]


def test_offline_shows_what_is_there_and_names_what_is_missing(server):
    made(seeded())
    session.default().settings.set("offline", True)
    before = len(server.requests)
    there, missing = made(seeded(), seeded("a dog"), lenient=True)
    assert there.cached
    assert missing.error.kind == "OfflineError"
    assert "flux-dev" in missing.error.message
    with pytest.raises(OfflineError):
        made(seeded("a dog"))
    with pytest.raises(OfflineError):
        nbimg.resume()
    assert len(server.requests) == before


def test_offline_fetches_no_input_image(server):
    session.default().settings.set("offline", True)
    before = len(server.requests)
    with pytest.raises(nbimg.NbimgError):
        nbimg.edit(f"{server.files_url}/x.png", "night", model="flux-kontext-max")
    assert len(server.requests) == before


def test_a_thousand_from_the_store_take_no_time(server):
    requests = [Request(f"cat {n}", model="flux-dev", seed=n) for n in range(60)]
    made(*requests)
    began = time.perf_counter()
    again = made(*requests)
    assert all(result.cached for result in again)
    assert time.perf_counter() - began < 2


def test_an_edit_in_place_is_not_shown_as_what_the_model_made(server):
    first = made(seeded())
    original = first.images[0].copy()
    path = first.paths[0]
    first.images[0].rotate(90).save(path)
    edited = path.read_bytes()
    again = made(seeded())[0]
    assert not again.cached
    assert again.images[0].pil().tobytes() == original.tobytes()
    assert path.read_bytes() == edited
    assert made(seeded(output="other.png"))[0].cached
