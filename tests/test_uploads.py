import asyncio
import io

import httpx
import PIL.Image
import pytest

import nbimg
from nbimg.errors import BackendError, InputError, KeyMissingError, UnknownNameError
from nbimg.testing import Fault
from nbimg.testing.pictures import render_picture
from nbimg.types import Status
from nbimg.uploads import aupload, upload

PNG = render_picture("a", "png", 20, 20)


def test_a_file_is_at_the_provider_under_its_own_name(server, tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    f = upload(path, provider="replicate")
    (kept,) = server.uploads
    assert (f.name, f.content_type, f.size) == ("cat.png", "image/png", len(PNG))
    assert f.url == str(f) == f"{server.base_url}/v1/files/{kept.id}"
    assert (kept.name, kept.content_type, kept.data) == ("cat.png", "image/png", PNG)


def test_its_address_can_be_used_as_a_parameter(server):
    f = upload(PNG)
    (result,) = nbimg.generate(["in winter"], model="flux-dev", params={"image": f.url})
    assert result.status is Status.OK
    assert server.jobs[0].input["image"] == f.url


@pytest.mark.parametrize(
    ("file", "name", "kind"),
    [
        (PNG, "file.png", "image/png"),
        (io.BytesIO(PNG), "file.png", "image/png"),
        (PIL.Image.new("RGB", (4, 4)), "image.png", "image/png"),
        (b"some words", "file.bin", "application/octet-stream"),
    ],
)
def test_anything_that_is_a_file_can_be_uploaded_and_has_an_extension(server, file, name, kind):
    f = upload(file)
    assert (f.name, f.content_type) == (name, kind)


def test_any_type_of_file_is_taken_and_named_by_its_extension(server, tmp_path):
    path = tmp_path / "weights.zip"
    path.write_bytes(b"PK\3\4")
    assert upload(path).content_type == "application/zip"
    assert upload(path, name="a/b/style.zip").name == "style.zip"


def test_a_picture_is_uploaded_without_the_place_where_it_was_taken(server):
    exif = PIL.Image.Exif()
    exif[0x010E] = "at home"
    target = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(target, "JPEG", exif=exif)
    upload(target.getvalue())
    assert b"at home" not in server.uploads[0].data
    assert PIL.Image.open(io.BytesIO(server.uploads[0].data)).size == (8, 8)


def test_it_can_be_awaited_in_a_running_loop(server):
    async def both():
        return await asyncio.gather(aupload(PNG), aupload(b"x"))

    assert len({f.url for f in asyncio.run(both())}) == 2


def test_a_missing_file_names_the_nearest(server, tmp_path):
    (tmp_path / "cat.png").write_bytes(PNG)
    with pytest.raises(UnknownNameError, match=r"cat\.png"):
        upload(tmp_path / "cta.png")


def test_a_provider_without_uploads_says_who_has_them(server):
    with pytest.raises(InputError, match=r"takes no uploads.*replicate"):
        upload(PNG, provider="demo")


def test_without_a_key_nothing_is_sent(server, monkeypatch):
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    with pytest.raises(KeyMissingError):
        upload(PNG)
    assert server.requests == []


def test_a_failed_upload_is_one_error_and_is_not_hidden(server):
    server.inject(Fault("error", method="POST", path="/v1/files", status=500, times=None))
    with pytest.raises(BackendError, match="answered 500"):
        upload(PNG)


@pytest.mark.parametrize("kind", ["drop", "html"])
def test_an_upload_that_is_lost_is_sent_again(server, kind):
    server.inject(Fault(kind, method="POST", path="/v1/files", when="after"))
    assert upload(PNG).url.startswith(server.base_url)
    assert server.count("POST", "/v1/files") == 2


def test_the_file_can_be_fetched_with_the_key_only(server):
    f = upload(PNG)
    assert httpx.get(f.url).status_code == 401
