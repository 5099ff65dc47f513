import array
import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import nbimg
from nbimg import session
from nbimg.media import pixels
from nbimg.notebook.gallery import open_gallery
from nbimg.notebook.panel import open_panel
from nbimg.results import ResultSet
from nbimg.testing import OpenAIServer, Outcome, ReplicateServer
from nbimg.text import cell
from nbimg.text.expand import expand
from nbimg.types import ImageRecord, Request, Result

from .pages import Heard

FOLDER = Path("nbimg-images")


def made(prompt="a cat", **values):
    return nbimg.generate(prompt, **{"seed": 7, "model": "flux-dev", **values})


def numbers_of(answer):
    return list(array.array("I", answer[1][0]))


@pytest.fixture
def server(monkeypatch):
    """A local Replicate that this process talks to, and the kernel as well."""
    with ReplicateServer() as running:
        monkeypatch.setenv("NBIMG_REPLICATE_BASE_URL", running.base_url)
        monkeypatch.setenv("REPLICATE_API_TOKEN", running.token)
        yield running


@pytest.fixture
def page(server):
    made()
    made(["a {dog}", "a house"], seed=8, ar="16:9", params={"output_quality": 90}, concurrency=1)
    heard = Heard(open_gallery())
    yield heard
    heard.widget.close()


def number(page, query):
    return numbers_of(page.ask("query", text=query))[0]


def test_a_search_is_answered_with_numbers_shapes_and_flags(page):
    about, buffers = page.ask("query", text="")
    assert (about["total"], about["all"], about["trashed"]) == (3, 3, 0)
    assert about["models"] == [["flux-dev", 3]]
    assert len(buffers[0]) == 4 * 3
    assert len(buffers[2]) == 3
    shapes = array.array("H", buffers[1])
    assert shapes[-1] == 1000, "the oldest is square"
    assert page.ask("query", text="house")[0]["total"] == 1
    assert page.ask("query", text="model:nothing")[0]["total"] == 0


def test_tiles_come_with_small_pictures_and_the_whole_one_when_it_is_asked_for(page):
    wanted = numbers_of(page.ask("query", text=""))
    tiles, thumbs = page.ask("tiles", numbers=wanted)
    assert [tile["prompt"] for tile in tiles] == ["a house", "a {dog}", "a cat"]
    assert all(max(Image.open(io.BytesIO(thumb)).size) <= 256 for thumb in thumbs)
    about, (data,) = page.ask("full", number=wanted[2])
    assert about == {"mime": "image/webp", "kind": "image"}
    assert data == nbimg.generate("a cat", seed=7, model="flux-dev").paths[0].read_bytes()


def test_what_browsers_do_not_show_is_sent_as_png():
    Image.new("RGB", (8, 6), "red").save("print.tiff")
    record = ImageRecord(Path("print.tiff"), None, "image", "image/tiff", 8, 6, "ab" * 32)
    results = ResultSet([Result(0, Request("in print"), "demo", images=(record,))])
    page = Heard(results.gallery())
    about, (data,) = page.ask("full", number=0)
    assert about["mime"] == "image/png"
    assert pixels.sniff(data) == "image/png"


def test_details_tell_every_parameter_and_attempt(page, server):
    server.expect(Outcome(prompt_has="bad luck", error="NSFW content detected"))
    nbimg.batch([{"prompt": "bad luck"}])
    about, _ = page.ask("details", number=number(page, "dog"))
    rows = dict(about["rows"])
    assert rows["Model"] == "replicate:black-forest-labs/flux-dev"
    assert (rows["Seed"], rows["Aspect ratio"], rows["output_quality"]) == ("8", "16:9", "90")
    assert rows["Cost"] == "$0.025"
    assert about["attempts"][0][1] == "create"
    assert about["price"] == "$0.025"
    failed, _ = page.ask("details", number=number(page, "status:refused"))
    assert "NSFW" in failed["error"]


def test_an_image_as_a_cell_makes_the_same_image_again(page, server):
    text, _ = page.ask("cell", number=number(page, "dog"))
    first, body = text.split("\n", 1)
    assert body == "a {{dog}}"
    spec = cell.parse(first.removeprefix("%%imggen "), body)
    assert spec.options["seed"] == 8
    assert spec.options["ar"] == "16:9"
    before = len(server.jobs)
    again = session.default().submit(expand(spec, {}).requests).wait()
    assert again[0].cached
    assert len(server.jobs) == before


def test_stars_are_kept_and_give_references(page):
    starred = made()
    wanted = number(page, "cat")
    page.ask("star", numbers=[wanted], on=True)
    assert starred.starred == list(starred.records)
    assert page.ask("query", text="is:starred")[0]["total"] == 1
    again = Heard(open_gallery())
    assert again.ask("query", text="is:starred")[0]["total"] == 1
    page.ask("star", numbers=[wanted], on=False)
    assert starred.starred == []


def test_the_trash_can_be_undone_and_shows_what_is_in_it(page):
    path = made().paths[0]
    wanted = number(page, "cat")
    assert page.ask("trash", numbers=[wanted])[0] == 1
    assert not path.exists()
    assert page.ask("query", text="cat")[0]["total"] == 0
    assert numbers_of(page.ask("query", text="is:trashed")) == [wanted]
    _, (data,) = page.ask("full", number=wanted)
    assert pixels.sniff(data) == "image/webp"
    page.ask("restore", numbers=[wanted])
    assert path.read_bytes() == data
    assert page.ask("query", text="cat")[0]["total"] == 1


def test_an_archive_holds_the_images_and_what_they_were_made_of(page):
    about, (data,) = page.ask("zip", numbers=numbers_of(page.ask("query", text="")))
    archive = zipfile.ZipFile(io.BytesIO(data))
    told = json.loads(archive.read("results.json"))
    assert about["count"] == 3
    assert {row["file"] for row in told} == set(archive.namelist()) - {"results.json"}
    assert told[0]["request"]["prompt"] == "a house"


def test_an_archive_that_is_large_stays_beside_the_notebook(page, monkeypatch):
    monkeypatch.setattr("nbimg.notebook.browse.LARGEST_ZIP", 10)
    about, buffers = page.ask("zip", numbers=numbers_of(page.ask("query", text="")))
    assert buffers == []
    assert len(zipfile.ZipFile(about["name"]).namelist()) == 4


def test_more_like_this_is_the_same_request_with_a_new_seed(page, server):
    job, _ = page.ask("more", number=number(page, "dog"))
    said = page.ended(job)
    assert (said["made"], said["error"]) == (1, "")
    sent = server.jobs[-1].input
    assert sent["prompt"] == "a {dog}"
    assert sent["aspect_ratio"] == "16:9"
    assert sent["seed"] != 8
    assert page.ask("query", text="dog")[0]["total"] == 2


def test_an_edit_of_the_whole_picture_is_sent_and_one_that_fails_says_why(page, server):
    wanted = number(page, "cat")
    job, _ = page.ask("edit", number=wanted, prompt="make it night")
    assert page.ended(job)["error"] == ""
    assert server.jobs[-1].input["prompt"] == "make it night"
    server.expect(Outcome(prompt_has="never", error="NSFW content detected"))
    job, _ = page.ask("edit", number=wanted, prompt="never")
    assert "NSFW" in page.ended(job)["error"]
    assert "there is no prompt" in page.refused("edit", number=wanted, prompt=" ")


def test_a_mask_goes_to_a_model_that_takes_one(page, monkeypatch):
    wanted = number(page, "cat")
    painted = Image.new("RGB", (64, 64))
    painted.paste("white", (0, 0, 32, 64))
    mask = pixels.encode(painted, "image/png")
    assert "takes a mask" in page.refused("edit", mask, number=wanted, prompt="a lit window")
    with OpenAIServer() as openai:
        monkeypatch.setenv("OPENAI_API_KEY", openai.key)
        monkeypatch.setenv("NBIMG_OPENAI_BASE_URL", openai.base_url)
        editors, _ = page.ask("editors")
        assert any(one["masks"] for one in editors if one["name"].startswith("gpt-image"))
        text, _ = page.ask("masked_cell", mask, number=wanted, prompt="a {lit} window")
        assert text.startswith("%%imgedit nbimg-images/")
        assert "--mask nbimg-images/.nbimg/objects/" in text
        assert text.endswith("\na {{lit}} window")
        job, _ = page.ask("edit", mask, number=wanted, prompt="a lit window")
        assert page.ended(job)["error"] == ""
        asked = openai.jobs[-1].asked
        assert asked.fields["prompt"] == "a lit window"
        cut = Image.open(io.BytesIO(asked.mask)).getchannel("A")
        edge = cut.width // 2
        assert cut.crop((0, 0, edge - 8, cut.height)).getextrema() == (0, 0), "to be changed"
        assert cut.crop((edge + 8, 0, cut.width, cut.height)).getextrema() == (255, 255), "kept"
        asked = {"number": wanted, "prompt": "x", "model": "flux-kontext-max"}
        said = page.refused("edit", mask, **asked)
        assert said.startswith("flux-kontext-max takes no mask. gpt-image-")


def test_a_reference_goes_to_an_open_panel_or_becomes_a_cell(page):
    text, _ = page.ask("reference", numbers=[number(page, "cat")])
    assert text.startswith('%%imggen -i "nbimg-images/')
    panel = open_panel({})
    heard = Heard(panel)
    assert page.ask("reference", numbers=[number(page, "cat")])[0] == ""
    said, _ = heard.wait(lambda one: one.get("event") == "refer")
    assert said["refs"][0]["path"].startswith("nbimg-images/")
    panel.close()


def test_what_is_new_is_seen_and_nothing_else(page):
    version, _ = page.ask("look")
    assert page.ask("look")[0] == version
    made("a bird")
    assert page.ask("look")[0] > version


def test_a_gallery_of_results_shows_these_alone(server):
    results = made(["one", "two"])
    made("three")
    page = Heard(results.gallery())
    tiles, _ = page.ask("tiles", numbers=numbers_of(page.ask("query", text="")))
    assert [tile["prompt"] for tile in tiles] == ["one", "two"]
    assert page.widget.whole is False


def test_an_unknown_question_and_a_broken_answer_are_said_and_nothing_hangs(page):
    assert "KeyError" in page.refused("nothing_like_it")
    assert "IndexError" in page.refused("full", number=10_000)


def test_a_folder_that_was_never_used_is_empty_and_stays_so():
    page = Heard(open_gallery("query"))
    assert page.ask("query", text="")[0]["total"] == 0
    assert page.widget.query == "query"
    assert not FOLDER.exists()


def test_the_magic_opens_a_gallery_with_its_search(notebook):
    notebook.run("%%imggen\na cat")
    ran = notebook.run("%imggallery cat is:starred")
    assert ran.ok, ran.error
    assert "application/vnd.jupyter.widget-view+json" in ran.bundles[0]
    assert (
        notebook.value("(g := get_ipython().run_line_magic('imggallery', 'a  b')).query") == "a  b"
    )
    assert "is:starred" in notebook.run("%imggallery --help").text
    assert "is:starred" in notebook.completions("%imggallery is:st")
