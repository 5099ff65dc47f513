from pathlib import Path

import pytest

from nbimg.results import Rerun, ResultSet
from nbimg.testing.pictures import render_picture
from nbimg.types import Attempt, ErrorRecord, ImageRecord, Request, Result, Seconds, Status


def record(seed=None, name=None):
    path = Path(name or f"{seed}.png").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(render_picture(str(path), "png", 8, 8))
    return ImageRecord(path, f"https://x/{seed}", seed=seed, width=8, height=8)


def attempt(outcome="ok", stage="create"):
    return Attempt("m", stage, 0.0, 1.0, outcome)


FAILED = {"status": Status.FAILED, "error": ErrorRecord("RejectedError", "no.")}


def result(index=0, images=(), **fields):
    request = fields.pop("request", Request(f"p{index}", n=max(1, len(images))))
    return Result(index, request, "m", images=tuple(images), **fields)


def test_it_is_a_sequence_in_the_order_of_the_tasks():
    results = ResultSet([result(k, [record(k)]) for k in range(3)])
    assert [r.index for r in results] == [0, 1, 2]
    assert len(results) == 3
    assert results[-1].index == 2
    assert isinstance(results[1:], ResultSet)
    assert len(results[1:]) == 2
    assert [image.size for image in results.images] == [(8, 8)] * 3
    assert len(results.images[:2]) == 2
    assert [p.name for p in results.paths] == ["0.png", "1.png", "2.png"]
    assert results.urls == ["https://x/0", "https://x/1", "https://x/2"]
    assert [r.seed for r in results.pick(2, 0)] == [2, 0]


def test_partial_is_in_failed_and_keeps_its_images():
    partial = result(1, [record(1)], status=Status.PARTIAL)
    results = ResultSet([result(0, [record(0)]), partial, result(2, **FAILED)])
    assert [r.index for r in results.ok] == [0]
    assert [r.index for r in results.failed] == [1, 2]
    assert len(results.failed.paths) == 1


def test_every_task_is_in_exactly_one_half_of_to_dicts():
    rows = ResultSet(
        [
            result(0, [record(0)], request=Request("p", output="x.png")),
            result(1, [record(1)], status=Status.PARTIAL),
            result(2, **FAILED),
            result(3, status=Status.CANCELLED),
        ]
    ).to_dicts()
    assert rows["total_tasks"] == 4
    assert [row["task_index"] for row in rows["successful_results"]] == [0]
    assert [row["task_index"] for row in rows["failed_results"]] == [1, 2, 3]
    assert all(row["error"] for row in rows["failed_results"])
    assert rows["successful_results"][0] == {
        "task_index": 0,
        "prompt": "p",
        "output_filename": "x.png",
        "generated_files": [{"url": "https://x/0", "filename": str(Path("0.png").absolute())}],
    }


def test_usage_adds_up():
    results = ResultSet(
        [
            result(
                0,
                [record(0)],
                attempts=(attempt("BusyError"), attempt(), attempt("UnreachableError", "poll")),
                seconds=Seconds(9, 2, 1),
                cost_usd=0.5,
            ),
            result(1, attempts=(attempt("RejectedError"),), **FAILED),
            result(2, attempts=(attempt("BusyError"),) * 3, **FAILED),
        ]
    )
    usage = results.usage
    assert (usage.succeeded, usage.failed, usage.generated_images) == (1, 2, 1)
    assert usage.retries == 2 + 0 + 2
    assert usage.rate_limited == 4
    assert usage.processing_time_seconds == 3
    assert usage.cost_usd == 0.5
    assert ResultSet([result(0, [record(0)])]).usage.cost_usd is None


def again(made):
    """A rerun that notes what it was asked for and makes it."""

    def rerun(requests):
        made.extend(requests)
        return ResultSet(
            [
                result(
                    k, [record((r.seed or 500) + j) for j in range(r.n)], request=r, cost_usd=1.0
                )
                for k, r in enumerate(requests)
            ]
        )

    return Rerun(rerun)


def test_retry_makes_only_the_variants_that_are_missing_with_the_seeds_they_would_have_had():
    made = []
    request = Request("x", n=4, seed=10)
    old = result(
        1, [record(10), record(12)], request=request, status=Status.PARTIAL, attempts=(attempt(),),
        cost_usd=2.0,
    )  # fmt: skip
    whole = ResultSet([result(0, [record(0)]), old], rerun=again(made)).retry_failed()
    assert [(r.n, r.seed) for r in made] == [(1, 11), (1, 13)]
    assert [image.seed for image in whole[1].images] == [10, 11, 12, 13]
    assert whole[1].status is Status.OK
    assert whole[1].request == request
    assert whole[1].index == 1
    assert whole[1].error is None
    assert whole[1].cost_usd == 4.0
    assert whole[0].index == 0


def test_retry_without_a_seed_makes_as_many_as_are_missing():
    made = []
    old = result(0, [record(3)], request=Request("x", n=3), status=Status.PARTIAL)
    (new,) = ResultSet([old], rerun=again(made)).retry_failed()
    assert [r.n for r in made] == [2]
    assert len(new.images) == 3


def test_retry_that_fails_again_keeps_what_there_was():
    old = result(0, [record(3)], request=Request("x", n=2), status=Status.PARTIAL)
    bad = ResultSet([result(0, **FAILED)])
    (new,) = ResultSet([old], rerun=Rerun(lambda requests: bad)).retry_failed()
    assert new.status is Status.PARTIAL
    assert len(new.images) == 1
    assert new.error.message == "no."


def test_retry_of_a_whole_set_makes_nothing():
    made = []
    results = ResultSet([result(0, [record(0)])], rerun=again(made))
    assert results.retry_failed() is results
    assert made == []


def test_save_overwrites_nothing():
    results = ResultSet([result(0, [record(1, "a/x.png"), record(2, "b/x.png")])])
    assert [p.name for p in results.save("out")] == ["x.png", "x-2.png"]
    assert [p.name for p in results.save("out")] == ["x-3.png", "x-4.png"]
    assert Path("out/x-2.png").read_bytes() == Path("b/x.png").read_bytes()


def test_a_table_has_a_row_an_image_or_a_failed_task():
    pytest.importorskip("pandas")
    table = ResultSet([result(0, [record(0), record(1)]), result(1, **FAILED)]).to_pandas()
    assert list(table["task"]) == [0, 0, 1]
    assert list(table["status"]) == ["ok", "ok", "failed"]
    assert table["error"].isna().tolist() == [True, True, False]


def test_it_shows_itself_as_a_grid_and_as_text():
    results = ResultSet([result(0, [record(0)]), result(1, **FAILED)])
    data, _ = results._repr_mimebundle_()
    assert "p0" in data["text/html"]
    assert "no." in data["text/html"]
    assert "p1" in repr(results)
