import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_examples_of_the_readme_run_in_a_real_kernel(tmp_path):
    examples = re.findall(r"```(?:ipython|python)\n(.*?)```", README, re.DOTALL)
    assert len(examples) >= 14
    cells = [nbformat.v4.new_code_cell(example.strip()) for example in examples]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=120,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()  # raises when a cell fails
    made = {path.name for path in (tmp_path / "nbimg-images").iterdir()}
    assert len([name for name in made if name.endswith(".png")]) >= 20
    assert {"boat_1.jpg", "boat_2.jpg", "heart_1.jpg", "heart_2.jpg"} <= made
    assert (tmp_path / "album" / "heart_2.jpg").is_file()


def test_the_test_command_of_the_readme_is_what_ci_calls():
    command = "python3 run.py test"
    assert f"```sh\n{command}\n```" in README
    assert (ROOT / ".ci" / "run").read_text("utf-8").rstrip().endswith(command)


def test_files_that_the_readme_names_exist():
    linked = re.findall(r"\]\(((?!https?:)[^)#]+)\)", README)
    for name in [*linked, *re.findall(r'src(?:set)?="(.*?)"', README)]:
        assert (ROOT / name).exists(), name
