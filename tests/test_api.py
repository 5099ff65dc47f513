import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nbimg
from nbimg import session
from nbimg.errors import (
    GenerationError,
    InputError,
    OptionError,
    QuotaExceededError,
    UnknownNameError,
)
from nbimg.planning.choose import choose
from nbimg.testing import FAILURES, Fault, Outcome
from nbimg.testing.pictures import render_picture
from nbimg.types import Request, Status

PNG = render_picture("x", "png", 8, 8)
CREATE = {"method": "POST", "path": "*/predictions"}


@pytest.fixture
def flux(server, monkeypatch):
    monkeypatch.setenv("NBIMG_MODEL", "flux-dev")
    monkeypatch.setenv("NBIMG_EDIT_MODEL", "flux-kontext-max")
    return server


def test_a_single_prompt_that_fails_raises_with_its_result_and_its_cause(flux):
    flux.credit = "none"
    with pytest.raises(GenerationError, match="payment") as caught:
        nbimg.generate("x")
    assert caught.value.result.status is Status.FAILED
    assert isinstance(caught.value.__cause__, QuotaExceededError)
    assert caught.value.__cause__.http_status == 402


def test_a_list_never_raises_for_a_task(flux):
    flux.expect(Outcome(error=FAILURES["E005"], times=None))
    assert [r.status for r in nbimg.generate(["x"])] == [Status.REFUSED]
    assert [r.status for r in nbimg.batch(["x", "y"])] == [Status.REFUSED] * 2


def test_an_empty_list_is_an_empty_result(flux):
    assert len(nbimg.batch([])) == 0
    assert len(nbimg.generate([])) == 0


def test_what_a_task_says_wins_over_the_options_of_the_call(flux):
    results = nbimg.batch(
        [
            "x",
            {"prompt": "y", "seed": 2},
            Request("z", seed=3, image=(PNG,)),
            Request("q", mask=np.zeros((2, 2)), seed=4),
        ],
        seed=1,
        steps=9,
    )
    assert [r.request.seed for r in results] == [1, 2, 3, 4]
    assert [r.request.steps for r in results] == [9] * 4


def test_an_unknown_option_names_the_nearest_and_sends_nothing(flux):
    with pytest.raises(UnknownNameError, match="steps"):
        nbimg.generate("x", stepps=3)
    assert flux.requests == []


@pytest.mark.parametrize("option", ["dry_run", "strict"])
def test_an_option_that_would_not_be_heard_is_refused_before_it_costs_money(flux, option):
    with pytest.raises(OptionError, match=option):
        nbimg.generate("x", **{option: True})
    assert flux.requests == []


def test_each_image_is_edited_by_itself_and_all_share_the_seed(flux):
    results = nbimg.edit([PNG, PNG], "make it night")
    assert [len(r.request.image) for r in results] == [1, 1]
    assert len({job.input["seed"] for job in flux.jobs}) == 1


def test_prompts_pair_with_images_or_are_refused(flux):
    results = nbimg.edit([PNG, PNG], ["a", "b"])
    assert [r.request.prompt for r in results] == ["a", "b"]
    with pytest.raises(InputError, match="3 prompts do not pair with 2 images"):
        nbimg.edit([PNG, PNG], ["a", "b", "c"])


def test_an_image_behind_an_address_is_fetched_with_a_second_try(flux):
    (made,) = nbimg.generate(["x"])
    flux.inject(Fault("truncate", method="GET", path="/xezq/*"))
    results = nbimg.edit(made.images[0].url, "make it night")
    assert results[0].status is Status.OK
    assert results[0].request.image[0].sha256 == made.images[0].sha256


def test_retry_makes_what_is_missing_at_the_provider_too(flux):
    flux.inject(Fault("error", **CREATE, status=422, skip=1))
    results = nbimg.generate(["x"], n=3, seed=5, fallback=())
    assert results[0].status is Status.PARTIAL
    whole = results.retry_failed()
    assert [image.seed for image in whole[0].images] == [5, 6, 7]
    assert len(flux.jobs) == 3
    assert not flux.duplicates()


def test_it_works_inside_a_running_loop_and_from_threads(flux):
    async def cell():
        return nbimg.generate("inside")

    assert asyncio.run(cell())[0].status is Status.OK
    found = []
    threads = [
        threading.Thread(target=lambda k=k: found.append(nbimg.generate(f"t{k}"))) for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {r[0].request.prompt for r in found} == {f"t{k}" for k in range(4)}
    assert len(flux.jobs) == 5


def test_other_tasks_of_the_notebook_go_on_while_a_call_is_awaited(flux):
    flux.running_s = 0.3
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    async def cell():
        other = asyncio.create_task(tick())
        results = await nbimg.agenerate("x")
        other.cancel()
        return results

    assert asyncio.run(cell())[0].status is Status.OK
    assert ticks > 10


def test_the_awaited_forms_do_as_the_blocking_ones(flux):
    async def cell():
        flux.expect(Outcome(error=FAILURES["E005"]))
        with pytest.raises(GenerationError):
            await nbimg.agenerate("bad")
        edited = await nbimg.aedit([PNG], "night")
        many = await nbimg.abatch(["a", {"prompt": "b"}])
        return [r.status for r in (*edited, *many)]

    assert asyncio.run(cell()) == [Status.OK] * 3


def test_a_wait_that_is_cancelled_stops_the_job_and_keeps_what_has_finished(flux):
    flux.expect(Outcome(running_s=60, prompt_has="slow"))

    async def cell():
        job = nbimg.submit(["slow", "quick"])
        waiting = asyncio.ensure_future(job)
        while not flux.count("GET", "/xezq/*"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return await job

    results = asyncio.run(cell())
    assert [r.status for r in results] == [Status.CANCELLED, Status.OK]
    assert sorted(job.status for job in flux.jobs) == ["canceled", "succeeded"]
    gc.collect()


def test_a_job_can_be_watched_and_asked_for_its_results_when_it_is_done(flux):
    flux.running_s = 0.2
    job = nbimg.submit("x")
    with pytest.raises(RuntimeError, match="still runs"):
        job.results  # noqa: B018
    assert "running" in repr(job)
    assert job.wait()[0].status is Status.OK
    assert job.done
    assert job.results[0].status is Status.OK
    assert job.id in repr(job)


def test_the_plan_of_a_call_sends_no_job(flux):
    plan, _ = session.default().plan([Request("x", n=2), Request("y", params={"no": 1})])
    assert len(plan.tasks) == 1
    assert list(plan.refused) == [1]
    assert plan.cost_usd == 0.05
    assert flux.jobs == []


def test_there_is_one_default_session_however_many_threads_ask():
    found = []
    threads = [threading.Thread(target=lambda: found.append(session.default())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in found}) == 1


def test_a_closed_session_leaves_no_thread_behind(flux, sessions):
    before = threading.active_count()
    own = sessions()
    own.submit([Request("x", model="flux-dev")]).wait()
    own.close()
    until = time.monotonic() + 3
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_with_a_key_the_first_provider_is_chosen_and_without_one_the_demo(server, monkeypatch):
    own = session.default()

    def chosen(task):
        return choose(None, task, own.settings, own.keys, own.registry)

    assert chosen("generate").ref.alias == "flux-dev"
    assert chosen("edit").ref.alias == "flux-kontext-max"
    assert "flux-dev (replicate, $0.025 an image)" in chosen("generate").note
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    choice = chosen("generate")
    assert choice.ref.alias == "demo"
    assert "REPLICATE_API_TOKEN" in choice.note


def test_what_a_bug_report_needs_holds_no_secret(flux):
    told = nbimg.about()
    assert told["keys"]["replicate"] is True
    assert flux.token not in str(told)
    assert told["packages"]["httpx"]


def test_the_line_about_the_model_is_shown_once_in_a_kernel(server):
    first, second = nbimg.generate("a cat"), nbimg.generate("a dog")
    assert "Choose another with -m" in first._repr_mimebundle_()[0]["text/html"]
    assert "Choose another with -m" not in second._repr_mimebundle_()[0]["text/html"]


def test_the_price_of_the_catalogue_is_what_a_task_costs(flux):
    assert nbimg.generate("a cat", n=2)[0].cost_usd == pytest.approx(0.05)


def test_a_list_of_which_no_task_can_be_sent_returns_its_failures(flux):
    results = nbimg.batch(
        [{"prompt": "a", "image": ["nope.png"]}, {"prompt": "b", "image": ["no.png"]}]
    )
    assert [result.status for result in results] == [Status.FAILED, Status.FAILED]
    assert "nope.png" in results[0].error.message
    assert flux.jobs == []


def test_an_empty_prompt_is_not_paid_for(flux):
    with pytest.raises(InputError, match="the prompt is empty"):
        nbimg.generate("  ")
    assert flux.jobs == []


def test_a_prompt_that_is_no_text_is_one_clear_line(flux):
    for wrong in (5, None):
        with pytest.raises(InputError, match="a prompt is a text"):
            nbimg.generate(wrong)


def test_every_image_of_a_result_is_edited_and_a_task_keeps_its_own_reference(flux):
    made = nbimg.generate("a cat", n=2)
    edited = nbimg.edit(made, "make it night", model="replicate:qwen/qwen-image-edit-plus")
    assert len(edited) == 2
    own = {"prompt": "like this one", "image": str(made.paths[1])}
    both = nbimg.edit(made.paths[0], own, model="replicate:qwen/qwen-image-edit-plus")
    assert len(both[0].request.image) == 2


def test_a_folder_is_all_the_images_in_it(flux):
    made = nbimg.generate("a cat", n=2)
    made.save("cats")
    edited = nbimg.edit("cats", "make it night", model="replicate:qwen/qwen-image-edit-plus")
    assert len(edited.ok) == 2


def test_threads_that_come_first_share_one_journal(flux):
    own = session.default()
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda _: own._workshop().place(), range(8)))
    assert len({id(place.journal) for place in places}) == 1


def test_the_text_says_what_was_dropped(flux):
    assert "negative prompt" in repr(nbimg.generate("a cat", negative="dogs"))


def test_a_time_out_holds_for_this_machine_too():
    with pytest.raises(GenerationError, match=r"time-out of 0\.01 s"):
        nbimg.generate("a cat", model="demo", timeout=0.01)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"seed": 1.5}, "seed 1.5 is not a whole number"),
        ({"seed": "x"}, "seed 'x' is not a whole number"),
        ({"seed": -1}, "seed -1 is not a whole number from 0"),
        ({"params": [1]}, "params [1] is not a dict"),
        ({"params": 5}, "params 5 is not a dict"),
        ({"n": 1.5}, "n 1.5 is not a whole number"),
        ({"n": 0}, "n 0 is not a whole number from 1"),
        ({"size": 5}, "size 5 is not WxH in pixels"),
        ({"ar": 5}, "ar 5 is not W:H"),
        ({"model": 5}, "model 5 is not a text"),
        ({"output": 5}, "output 5 is not a text"),
        ({"negative": 5}, "negative 5 is not a text"),
        ({"guidance": "x"}, "guidance 'x' is not a number"),
        ({"guidance": float("nan")}, "guidance nan is not a number"),
        ({"budget": float("nan")}, "budget nan is not"),
        ({"retries": -1}, "retries -1 is not"),
    ],
)
@pytest.mark.parametrize("call", [nbimg.generate, nbimg.submit])
def test_an_option_that_means_nothing_is_one_line_and_sends_nothing(flux, call, option, said):
    with pytest.raises(OptionError) as caught:
        call("x", **option)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert flux.requests == []


def test_numbers_may_be_texts_and_those_of_numpy(flux):
    (result,) = nbimg.generate("x", seed=np.int64(3), n="2", retries="2", size=(512, 512))
    assert (result.request.seed, result.request.n) == (3, 2)
    assert [r.request.seed for r in nbimg.generate(["x", "y"], seed=[1, 2])] == [1, 2]


@pytest.mark.parametrize(
    "fields",
    [
        {"model": 5},
        {"params": [1]},
        {"size": 5},
        {"size": (1, 2, 3)},
        {"n": None},
        {"lora": 5},
        {"output": 5},
        {"negative": 5},
        {"scheduler": 5},
    ],
)
def test_a_request_with_a_field_of_another_kind_is_one_line_that_names_it(fields):
    with pytest.raises(OptionError, match=next(iter(fields))):
        Request("x", **fields)
