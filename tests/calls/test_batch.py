import itertools

import pandas as pd
import pytest

import nbimg
from nbimg.errors import InputError, OptionError, UnknownNameError
from nbimg.types import Request, Status


@pytest.fixture(autouse=True)
def flux(server, monkeypatch):
    monkeypatch.setenv("NBIMG_MODEL", "flux-dev")
    return server


def test_dicts_with_the_names_that_people_bring_along_become_tasks(flux):
    results = nbimg.batch(
        [
            {"prompt": "A red car", "output_filename": "red_car.jpg", "resolution": "1:1"},
            {
                "prompt": "A dog",
                "model_name": "qwen-image",
                "num_outputs": 2,
                "output_path": "dog.jpg",
            },
            Request("portrait", params={"output_quality": 95}),
        ]
    )
    assert [r.status for r in results] == [Status.OK] * 3
    assert [path.name for path in results.paths][:3] == ["red_car.jpg", "dog_1.jpg", "dog_2.jpg"]
    assert results[1].model == "replicate:qwen/qwen-image"
    (portrait,) = [job for job in flux.jobs if job.input["prompt"] == "portrait"]
    assert portrait.input["output_quality"] == 95


def test_a_parameter_of_other_models_costs_no_task_and_is_said(flux):
    request = Request("portrait", model="imagen-4-ultra", params={"output_quality": 95})
    results = nbimg.batch([{"prompt": "A red car", "output_filename": "red_car.jpg"}, request])
    assert [r.status for r in results] == [Status.OK] * 2
    assert results[1].notices == ("imagen-4-ultra takes no output_quality: dropped.",)


def test_a_table_is_a_batch_with_a_row_a_task(flux):
    table = pd.DataFrame({"prompt": ["a", "b"], "seed": [3, None]})
    results = nbimg.batch(table)
    assert [r.request.prompt for r in results] == ["a", "b"]
    assert results[0].images[0].seed == 3


def test_the_options_of_the_call_are_defaults_for_its_tasks(flux):
    results = nbimg.batch({"tasks": [{"prompt": "a", "seed": 9}, "b"]}, seed=4, n=2)
    assert [image.seed for r in results for image in r.images] == [9, 10, 4, 5]


def test_a_list_of_seeds_gives_one_a_task(flux):
    results = nbimg.generate(["a", "b", "c"], seed=[5, 6, 7])
    assert [r.images[0].seed for r in results] == [5, 6, 7]
    with pytest.raises(OptionError, match=r"2.*3|3.*2"):
        nbimg.generate(["a", "b", "c"], seed=[5, 6])


def test_a_task_with_an_unknown_key_names_itself_and_the_nearest(flux):
    with pytest.raises(UnknownNameError) as raised:
        nbimg.batch([{"prompt": "a"}, {"prompt": "b", "modle": "flux-dev"}])
    assert "model" in str(raised.value)
    assert "2" in str(raised.value)
    assert len(flux.jobs) == 0


def test_an_empty_batch_is_a_mistake_that_is_told(flux):
    with pytest.raises(InputError):
        nbimg.batch({"tasks": []})


def test_the_dicts_of_a_result_say_what_was_made_and_what_failed(flux):
    results = nbimg.batch(
        [{"prompt": "a", "output_filename": "a.jpg"}, {"prompt": "b", "params": {"no_such": 1}}]
    )
    told = results.to_dicts()
    assert told["total_tasks"] == 2
    (good,), (bad,) = told["successful_results"], told["failed_results"]
    assert good["task_index"] == 0
    assert good["generated_files"][0]["filename"].endswith("a.jpg")
    assert bad["task_index"] == 1
    assert "no_such" in bad["error"]


def test_addresses_alone_are_given_when_asked(flux):
    results = nbimg.batch([{"prompt": "a"}], url_only=True)
    assert results.paths == []
    assert results.urls[0].startswith(flux.files_url)


def test_a_semaphore_of_ones_own_bounds_a_batch(flux):
    flux.running_s = 0.05
    nbimg.register_semaphore("mine", 1)
    results = nbimg.batch([{"prompt": str(n)} for n in range(4)], semaphore="mine")
    assert len(results.ok) == 4
    spans = sorted((job.started_s, job.completed_s) for job in flux.jobs)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))
    with pytest.raises(UnknownNameError, match="mien"):
        nbimg.batch(["a"], semaphore="mien")
