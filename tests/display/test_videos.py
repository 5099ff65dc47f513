from pathlib import Path

import pytest

from nbimg.display import grid
from nbimg.display.bundle import bundle
from nbimg.media import pixels
from nbimg.results import ResultSet
from nbimg.types import ImageRecord, Request, Result

BASE = Path("/notebooks")
POSTER = pixels.poster(640, 360)


def record(kind, name, **more):
    path = BASE / "nbimg-images" / name
    return ImageRecord(path, kind=kind, mime=f"{kind}/x", width=640, height=360, **more)


FILM = record("video", "a film.mp4", sha256="a")
PICTURE = record("image", "a.png", sha256="b")


def result(*images, index=0):
    return Result(
        index, Request("a cat runs", n=max(1, len(images))), "speedpix:2001", images=images
    )


def shown(*images):
    return grid.render(grid.plan([result(*images)], thumb=lambda *_: POSTER, base=BASE))


def test_a_video_shows_as_a_poster_that_is_linked_to_its_file():
    html = shown(FILM)
    assert '<a href="nbimg-images/a%20film.mp4" target="_blank"><img src="data:image/webp' in html
    assert "▶ video" in html
    assert 'alt="a cat runs"' in html


def test_a_video_without_its_file_says_so_and_links_what_there_is():
    html = grid.render(grid.plan([result(FILM)], thumb=lambda *_: None, base=BASE))
    assert "▶ video" in html
    assert "<img" not in html


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([FILM], "1 video"),
        ([FILM, FILM], "2 videos"),
        ([PICTURE, FILM, FILM], "1 image · 2 videos"),
        ([PICTURE], "1 image"),
        ([], "0 images"),
    ],
)
def test_the_line_under_the_grid_counts_images_and_videos(images, said):
    assert grid.summary([result(*images)]).startswith(said + " · ")


def test_the_bundle_has_a_sheet_of_posters():
    data, _ = bundle([result(FILM)], thumb=lambda *_: POSTER, base=BASE)
    assert "image/jpeg" in data
    assert "a film.mp4" in data["text/plain"]


def test_a_result_set_tells_videos_from_images():
    results = ResultSet([result(FILM, PICTURE)])
    assert results.videos == (FILM,)
    assert len(results.images) == 1
    assert results.paths == [FILM.path, PICTURE.path]
