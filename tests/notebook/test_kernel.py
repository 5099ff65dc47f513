"""Cells in a real kernel: what is shown, what is kept, what is on disk, what the server was asked."""

from __future__ import annotations

import base64
import re
import socket
from pathlib import Path

import pytest

from nbimg.testing import FAILURES, Fault, Outcome

IMAGE = re.compile(r'<img src="data:image/webp;base64,[A-Za-z0-9+/=]+" alt="([^"]*)"')


def made(folder: Path, output_dir: str = "nbimg-images") -> list[Path]:
    return [path for path in (folder / output_dir).glob("*") if path.is_file()]


# ------------------------------------------------------------------------- the first minute


def test_a_cell_shows_a_grid_and_a_small_picture_and_a_text(notebook, server):
    ran = notebook.run("%%imggen\na red house at night")
    assert ran.ok
    (output,) = ran.outputs
    assert output.output_type == "display_data"
    assert set(output.data) == {"text/html", "text/plain", "image/jpeg"}
    assert IMAGE.findall(output.data["text/html"]) == ["a red house at night"]
    assert base64.b64decode(output.data["image/jpeg"]).startswith(b"\xff\xd8\xff")
    assert "a red house at night" in output.metadata["image/jpeg"]["alt"]
    assert "a red house at night" in output.data["text/plain"]
    assert len(server.jobs) == 1


def test_the_images_are_on_disk_where_the_text_says(notebook):
    ran = notebook.run("%%imggen -n 3\na red house")
    files = made(notebook.folder)
    assert len(files) == 3
    assert all(f"nbimg-images/{path.name}" in ran.text for path in files)


def test_the_result_is_in_img_and_in_the_variable_that_was_named(notebook):
    assert notebook.run("%%imggen -n 2 -v houses\na red house").ok
    assert notebook.value("_img is houses, len(houses), len(houses.paths)") == "True 1 2"
    assert notebook.run("%%imggen\na cat").ok
    assert notebook.value("_img is houses, len(_img.paths)") == "False 1"


def test_the_value_of_a_line_is_shown_exactly_once(notebook):
    ran = notebook.run("%imggen -n 2 a cat")
    assert [o.output_type for o in ran.outputs if o.get("data", {}).get("text/html")] == [
        "execute_result"
    ]
    assert len(IMAGE.findall(ran.html)) == 2


def test_the_value_of_a_line_is_not_shown_when_it_is_assigned(notebook):
    ran = notebook.run("print('before')\ncats = %imggen -n 2 a cat\nprint('after')")
    assert ran.ok
    assert not ran.html
    assert ran.text.split() == ["before", "after"], "and what the cell prints itself stays"
    assert notebook.value("len(cats.paths)") == "2"


def test_a_fan_out_is_a_grid_with_labels(notebook, server):
    notebook.run("styles = ['ink', 'oil']")
    ran = notebook.run("%%imggen\na {cat|dog} in {styles}")
    assert [job.input["prompt"] for job in server.jobs].count("a cat in ink") == 1
    assert IMAGE.findall(ran.html) == [
        "a cat in ink", "a cat in oil", "a dog in ink", "a dog in oil",
    ]  # fmt: skip
    assert len({job.input["seed"] for job in server.jobs}) == 1, "only the named axes differ"


def test_images_are_edited_from_files_and_variables(notebook, server):
    notebook.run("%%imggen -v first -o first.png\na cat")
    ran = notebook.run("%%imgedit nbimg-images/first.png first\nmake it night")
    assert ran.ok, ran.error
    assert len(IMAGE.findall(ran.html)) == 2
    edits = [job for job in server.jobs if job.input["prompt"] == "make it night"]
    assert len(edits) == 2


# ------------------------------------------------------------------------- nothing is sent


def test_a_dry_run_shows_the_plan_and_sends_nothing(notebook, server):
    ran = notebook.run("%%imggen --dry-run -n 2\na {red|blue} house")
    assert ran.ok
    assert "2 tasks, 4 images" in ran.text
    assert "Nothing was sent" in ran.text
    assert "'a red house'" in ran.text
    assert not server.jobs


@pytest.mark.parametrize(
    "cell", ["%%imggen --help", "%%imggen --help\na cat", "%%imggen -h", "%imggen --help"]
)
def test_help_is_shown_and_nothing_is_sent(notebook, server, cell):
    ran = notebook.run(cell)
    assert ran.ok, ran.error or ran.text
    assert "--negative" in ran.text
    assert "Examples" in ran.text
    assert not server.requests


@pytest.mark.parametrize("cell", ["%%imggen?", "%imggen?", "%imgedit?", "%imgmodels?"])
def test_a_question_mark_shows_help(notebook, cell):
    ran = notebook.run(cell)
    assert ran.ok
    shown = ran.reply["payload"][0]["data"]["text/plain"]
    assert ("make images from the text" if "gen" in cell else "%img") in shown


def test_the_list_of_models_says_which_can_be_used(notebook):
    everything, some = notebook.run("%imgmodels").text, notebook.run("%imgmodels qwen").text
    assert "flux-dev " in everything
    assert "qwen-image " in some
    assert "flux-dev " not in some
    assert "%imgmodels PATTERN" in notebook.run("%imgmodels --help").text
    notebook.run("import os; del os.environ['REPLICATE_API_TOKEN']")
    assert "no key" in notebook.run("%imgmodels flux-dev").text


# ------------------------------------------------------------------------- settings


def test_settings_are_listed_set_and_taken_back(notebook):
    assert "NbImg.columns=<Int>" in notebook.run("%config NbImg").text
    notebook.run("%config NbImg.output_dir = 'elsewhere'")
    assert notebook.run("%%imggen\na cat").ok
    assert len(made(notebook.folder, "elsewhere")) == 1
    notebook.run("%config NbImg.output_dir = None")
    assert notebook.run("%%imggen\na cat").ok
    assert len(made(notebook.folder)) == 1


def test_config_wins_over_the_environment_and_that_over_the_file(notebook):
    (notebook.folder / "nbimg.toml").write_text('output_dir = "from-file"\n')
    notebook.run("import time; time.sleep(0.3)")  # files are looked at ten times a second
    notebook.run("%%imggen\na cat")
    notebook.run("import os; os.environ['NBIMG_OUTPUT_DIR'] = 'from-environment'")
    notebook.run("%%imggen\na cat")
    notebook.run("%config NbImg.output_dir = 'from-config'")
    notebook.run("%%imggen\na cat")
    for name in ("from-file", "from-environment", "from-config"):
        assert len(made(notebook.folder, name)) == 1, name


def test_the_environment_is_shown_by_config(notebook):
    notebook.run("import os; os.environ['NBIMG_COLUMNS'] = '7'\n%reload_ext nbimg")
    assert notebook.value("get_ipython().run_line_magic('config', 'NbImg.columns')") == "7"
    notebook.run("os.environ['NBIMG_COLUMNS'] = '3'")
    assert (
        notebook.value("__import__('nbimg.session').session.default().settings.get('columns')")
        == "3"
    )


def test_what_the_profile_configures_is_in_force(notebook):
    notebook.run("%unload_ext nbimg\nget_ipython().config.NbImg.output_dir = 'from-profile'")
    notebook.run("%load_ext nbimg")
    ran = notebook.run("%%imggen\na cat")
    notebook.run("del get_ipython().config['NbImg']")
    assert ran.ok
    assert len(made(notebook.folder, "from-profile")) == 1


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("NbImg.display = 'foo'", "is not one of grid, live, none"),
        ("NbImg.columns = 'x'", "expected an int"),
        ("NbImg.colums = 3", "Did you mean `columns`"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_and_the_old_one_stays(notebook, statement, said):
    ran = notebook.run(f"%config {statement}")
    assert said in ran.text
    assert "Traceback" not in ran.text
    notebook.run("%config NbImg.display = 'grid'")
    notebook.run(f"%config {statement}\n%reload_ext nbimg")
    assert notebook.value("get_ipython().run_line_magic('config', 'NbImg.display')") == "grid"


# ------------------------------------------------------------------------- errors in one line


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%imggen --sedd 1\na", "no option '--sedd'. Did you mean --seed"),
        ("%%imggen -n many\na", "-n 'many' is not a whole number"),
        ("%%imggen -n 0\na", "n"),
        ("%%imggen --display all\na", "is not one of grid, live, none"),
        ("%%imggen -m flux-dve\na", "no model 'flux-dve'. Did you mean flux-dev?"),
        ("colour = 1\n%imggen a {color} cat", "no variable 'color'. Did you mean colour?"),
        ("%%imgedit nothere.png\na", "'nothere.png'"),
        ("%%imggen -i nothere.png\na", "'nothere.png'"),
        ("%%imggen", "there is no prompt"),
        ("%%imggen\n", "there is no prompt"),
        ("%%imggen -n 2\n  \n\n", "there is no prompt"),
        ("%imggen", "there is no prompt"),
        ("%%imgedit\nmake it night", "there is no image to edit"),
        ("%%imggen\na {red house", "{ is not closed"),
        ("%%imggen\na red} house", "}"),
        ("%%imggen --negative 'a\nb", "the quote ' is not closed"),
        ("%%imggen a cat\na dog", "The prompt goes below the %%imggen line."),
        ("%%imggen -o ../b.jpg\na", "leaves the output folder"),
    ],
)
def test_a_mistake_is_answered_with_one_clear_line(notebook, server, cell, said):
    ran = notebook.run(cell)
    assert ran.reply["status"] == "error"
    assert said in " ".join(line.strip() for line in ran.error.splitlines())
    assert "Traceback" not in ran.error
    assert len(ran.error.splitlines()) <= 2
    assert not server.jobs


def test_a_mistake_leaves_no_progress_behind(notebook):
    ran = notebook.run("%%imggen -m flux-dve\na")
    assert [o.output_type for o in ran.outputs] == ["error"]


@pytest.mark.parametrize("cell", ["%%imggen --semaphore nope\na", "r = %imggen --semaphore nope a"])
def test_a_call_that_is_refused_leaves_no_progress_behind(notebook, server, cell):
    ran = notebook.run(cell)
    assert "no semaphore 'nope'" in ran.error
    assert "Did you mean" not in ran.error
    assert "openai, replicate, speedpix" in ran.error
    assert "<progress" not in ran.html
    assert server.requests == []


@pytest.mark.parametrize("where", ["a-file", "a-file/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written_is_said_before_anything_is_paid(notebook, server, where):
    (notebook.folder / "a-file").write_text("in the way")
    notebook.run(f"%config NbImg.output_dir = {where!r}")
    ran = notebook.run("%%imggen\na cat")
    assert ran.error_name == "StoreWriteError"
    assert "cannot be written" in ran.error
    assert "%config NbImg.output_dir" in ran.error
    assert [o.output_type for o in ran.outputs] == ["error"]
    assert not server.jobs


def test_a_key_that_is_not_accepted_is_said_without_the_key(notebook, server):
    notebook.run("import os; os.environ['REPLICATE_API_TOKEN'] = 'fake-but-wrong-token'")
    ran = notebook.run("%%imggen\na cat")
    assert ran.error_name == "KeyRejectedError"
    assert "REPLICATE_API_TOKEN" in ran.error
    assert "fake-but-wrong-token" not in str(ran.cell)
    assert len(ran.error.splitlines()) <= 2


def test_a_server_that_is_not_there_is_said_in_one_line(notebook):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    notebook.run(f"import os; os.environ['NBIMG_REPLICATE_BASE_URL'] = 'http://127.0.0.1:{port}'")
    ran = notebook.run("%%imggen --retries 1\na cat")
    assert ran.error_name == "UnreachableError"
    assert f"http://127.0.0.1:{port}" in ran.error
    assert len(ran.error.splitlines()) <= 2


def test_debug_shows_the_traceback(notebook):
    ran = notebook.run("%%imggen --debug -m flux-dve\na")
    assert "Traceback (most recent call last)" in ran.error
    assert "no model 'flux-dve'" in ran.error


def test_debug_shows_what_was_behind_a_failed_task(notebook, server):
    server.expect(Outcome(error=FAILURES["nsfw"]))
    ran = notebook.run("%%imggen --debug\na")
    assert "ContentRefusedError" in ran.error
    assert "The above exception was the direct cause" in ran.error


def test_a_prompt_of_ten_thousand_characters_of_markup_stays_text(notebook, server):
    prompt = ("<script>alert(1)</script> \"quoted\" 'too' 😀 & </div> " * 250)[:10_000].strip()
    ran = notebook.run(f"%%imggen\n{prompt}")
    assert ran.ok, ran.error
    assert server.jobs[0].input["prompt"] == prompt
    assert "<script" not in ran.html
    assert "&lt;script&gt;" in ran.html
    assert ran.html.count("<div") == ran.html.count("</div>")


# ------------------------------------------------------------------------- failed tasks


def test_one_failed_task_does_not_cost_the_others(notebook, server):
    server.expect(Outcome(error=FAILURES["nsfw"], prompt_has="bad"))
    ran = notebook.run("%%imggen --lines\ngood\nbad\nbetter")
    assert ran.ok
    assert IMAGE.findall(ran.html) == ["good", "better"]
    assert "NSFW content detected" in ran.html
    assert notebook.value("[r.status.value for r in _img]") == "['ok', 'refused', 'ok']"


def test_a_cell_fails_when_every_task_did(notebook, server):
    server.expect(Outcome(error=FAILURES["E005"], times=None))
    ran = notebook.run("%%imggen --lines\nbad\nworse")
    assert ran.reply["status"] == "error"
    assert "2 of 2 tasks failed, the first:" in ran.error
    assert len(ran.error.splitlines()) <= 2
    assert "flagged as sensitive" in ran.html, "the grid says why, too"
    assert notebook.value("len(_img.failed)") == "2"


def test_strict_fails_the_cell_for_one_failed_task_and_keeps_the_images(notebook, server):
    server.expect(Outcome(error=FAILURES["nsfw"], prompt_has="bad"))
    ran = notebook.run("%%imggen --lines --strict\ngood\nbad")
    assert ran.reply["status"] == "error"
    assert "1 of 2 tasks failed" in ran.error
    assert IMAGE.findall(ran.html) == ["good"]
    assert notebook.value("len(_img.paths)") == "1"


def test_a_fault_in_drawing_does_not_cost_the_images(notebook, server):
    notebook.run(
        "import nbimg.notebook.live as live\nkept = live.render_html\n"
        "def broken(*_): raise ValueError('cannot draw')\nlive.render_html = broken"
    )
    ran = notebook.run("%%imggen -n 2\na cat")
    notebook.run("live.render_html = kept")
    assert ran.ok, ran.error
    assert len(made(notebook.folder)) == 2
    assert notebook.value("len(_img.paths)") == "2"


# ------------------------------------------------------------------------- what is shown while it runs


def test_something_is_shown_at_once_and_replaced_at_the_end(notebook, server):
    server.inject(Fault("delay", method="GET", delay_s=3.0))
    shown = notebook.run_watched("%%imggen -n 4\na cat")
    first_s, first = shown[0]
    assert first_s < 2.5, "before the first answer of the network"
    assert "0 of 4 images" in first["text/html"]
    assert len(IMAGE.findall(shown[-1][1]["text/html"])) == 4
    assert len(notebook.node.cells[-1].outputs) == 1
    assert "<progress" not in notebook.node.cells[-1].outputs[0].data["text/html"]


def test_a_wait_that_the_provider_asks_for_is_shown(notebook, server):
    server.inject(Fault("error", method="POST", path="*/predictions", status=429, retry_after_s=1))
    shown = notebook.run_watched("%%imggen\na cat")
    assert any("next try in" in data.get("text/html", "") for _, data in shown)
    assert len(IMAGE.findall(shown[-1][1]["text/html"])) == 1


def test_display_grid_shows_no_progress_and_none_shows_nothing(notebook):
    assert len(notebook.run_watched("%%imggen --display grid\na cat")) == 1
    ran = notebook.run("%%imggen --display none\na cat")
    assert ran.ok
    assert not ran.outputs
    assert notebook.value("len(_img.paths)") == "1"


# ------------------------------------------------------------------------- stop


@pytest.fixture
def hanging(server):
    """Jobs whose prompt has `hang` run until they are cancelled."""
    server.expect(Outcome(prompt_has="hang", running_s=10_000.0, times=None))
    return server


def stop_when_running(notebook, server, jobs, finished=0):
    def stop():
        for _ in range(200):
            hangs = [job for job in server.jobs if job.status == "processing"]
            files = made(notebook.folder) if finished else []
            if len(hangs) >= jobs and len(files) >= finished:
                break
            notebook.sleep(0.05)
        notebook.interrupt()

    return stop


def test_stop_ends_the_cell_keeps_what_is_done_and_cancels_the_rest(notebook, hanging):
    stop = stop_when_running(notebook, hanging, jobs=2, finished=1)
    ran = notebook.run("%%imggen --lines -v mine\ngood\nhang\nhang on", meanwhile=stop)
    assert notebook.since_stop_s() < 2.0
    assert ran.reply["status"] == "error"
    assert ran.error.splitlines() == ["Stopped: 1 image kept."]
    assert IMAGE.findall(ran.html) == ["good"]
    statuses = "['ok', 'cancelled', 'cancelled']"
    assert notebook.value("[r.status.value for r in mine]") == statuses
    assert notebook.value("mine is _img, len(_img.paths)") == "True 1"
    assert sorted(job.status for job in hanging.jobs) == ["canceled", "canceled", "succeeded"]


def test_the_next_cell_works_after_stop(notebook, hanging):
    notebook.run("%%imggen\nhang", meanwhile=stop_when_running(notebook, hanging, jobs=1))
    ran = notebook.run("%%imggen\na cat")
    assert ran.ok
    assert IMAGE.findall(ran.html) == ["a cat"]


def test_stop_reaches_a_line_too(notebook, hanging):
    stop = stop_when_running(notebook, hanging, jobs=1)
    ran = notebook.run("cats = %imggen hang\nprint('never')", meanwhile=stop)
    assert ran.error.splitlines() == ["Stopped: 0 images kept."]
    assert "never" not in ran.text, "what follows in the cell is not run"
    assert [job.status for job in hanging.jobs] == ["canceled"]


def test_stop_reaches_a_call_of_the_api_in_one_line_and_keeps_what_is_done(notebook, hanging):
    notebook.run("import nbimg")
    stop = stop_when_running(notebook, hanging, jobs=1, finished=1)
    ran = notebook.run("r = nbimg.batch(['good', 'hang'])", meanwhile=stop)
    assert ran.error.splitlines() == ["Stopped: 1 image kept in _img."]
    assert notebook.value("[r.status.value for r in _img]") == "['ok', 'cancelled']"
    assert "<progress" not in ran.html


def test_stop_while_the_plan_is_made_is_one_line(notebook, server):
    server.inject(Fault("hang", method="GET", times=None))

    def stop():
        while not server.requests:
            notebook.sleep(0.02)
        notebook.interrupt()

    ran = notebook.run("%%imggen --dry-run\na cat", meanwhile=stop)
    assert ran.error.splitlines() == ["Stopped."]
    assert notebook.since_stop_s() < 2.0


# ------------------------------------------------------------------------- load and unload


def test_loading_again_leaves_one_of_each(notebook):
    before = notebook.value("len(get_ipython().configurables)")
    matchers = notebook.value("len(get_ipython().Completer.custom_matchers)")
    transforms = notebook.value("len(get_ipython().input_transformers_cleanup)")
    assert not notebook.run("%reload_ext nbimg\n%reload_ext nbimg").outputs
    assert notebook.value("len(get_ipython().configurables)") == before
    assert notebook.value("len(get_ipython().Completer.custom_matchers)") == matchers
    assert notebook.value("len(get_ipython().input_transformers_cleanup)") == transforms
    assert notebook.run("%%imggen\na cat").ok


def test_settings_outlive_a_reload(notebook):
    notebook.run("%config NbImg.columns = 5\n%reload_ext nbimg")
    assert notebook.value("get_ipython().run_line_magic('config', 'NbImg.columns')") == "5"


def test_unloading_leaves_nothing(notebook):
    assert not notebook.run("%unload_ext nbimg").outputs
    ran = notebook.run("%%imggen\na cat")
    assert "imggen" in ran.text + ran.error
    assert "not found" in ran.text + ran.error
    assert "NbImg" not in notebook.run("%config").text
    assert "%%imggen" not in notebook.completions("%%img")
    assert "%imgmodels" not in notebook.completions("%img")
