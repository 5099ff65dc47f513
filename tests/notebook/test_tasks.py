"""Task lists in cells: from the body, a variable, a file."""

from __future__ import annotations

from .test_kernel import IMAGE, made


def test_the_body_is_read_as_tasks(notebook, server):
    ran = notebook.run(
        "%%imggen --tasks\n- a red car\n- prompt: a dog {not a variable}\n  output_filename: dog.png"
    )
    assert ran.ok, ran.error
    assert IMAGE.findall(ran.html) == ["a red car", "a dog {not a variable}"]
    assert "dog.png" in [path.name for path in made(notebook.folder)]
    assert len({job.input["seed"] for job in server.jobs}) == 2, "each task has a seed of its own"


def test_a_variable_and_a_file_are_read_as_tasks(notebook):
    notebook.run("mine = [{'prompt': 'a cat', 'num_outputs': 2}]")
    (notebook.folder / "mine.csv").write_text("prompt,seed\na bird,7\n")
    assert notebook.run("%%imggen --tasks mine -v r").ok
    assert notebook.value("len(r.paths)") == "2"
    assert notebook.run("%%imggen --tasks mine.csv -v r").ok
    assert notebook.value("r[0].images[0].seed") == "7"


def test_tasks_with_images_of_their_own_are_edited(notebook):
    notebook.run("%%imggen -o first.png\na cat")
    cell = '%%imgedit --tasks\n[{"prompt": "make it night", "image": "nbimg-images/first.png"}]'
    ran = notebook.run(cell)
    assert ran.ok, ran.error
    assert len(IMAGE.findall(ran.html)) == 1
    both = notebook.run('%%imgedit nbimg-images/first.png --tasks\n["make it day"]')
    assert both.ok, both.error


def test_a_mistake_in_a_task_is_one_line_with_its_place(notebook, server):
    ran = notebook.run('%%imggen --tasks\n[{"prompt": "a"}, {"promt": "b"}]')
    assert "task 2" in ran.error
    assert "prompt" in ran.error
    assert len(ran.error.splitlines()) <= 2
    assert not server.jobs
