"""The suite is worth something only if it finds what it is for: backends with one defect each."""

import subprocess
import sys
from pathlib import Path

import pytest

import nbimg

DEFECTS = """
from nbimg.backends.plain import PlainBackend
from nbimg.errors import JobFailedError, OutcomeUnknownError, RejectedError, UnreachableError
from nbimg.testing.conformance import BackendConformance
from tests.testing.test_example import Sketch, TestSketch as Right

del BackendConformance


class SendsItAgain(Sketch):
    async def create(self, call):
        try:
            return await super().create(call)
        except OutcomeUnknownError:
            return await super().create(call)


class TakesA500ForARefusal(Sketch):
    async def create(self, call):
        try:
            return await super().create(call)
        except OutcomeUnknownError as error:
            raise UnreachableError(error.message, backend=self.name) from error


class ShowsItsKeyToEverybody(Sketch):
    async def fetch(self, url):
        return (await self.http.send("GET", url, headers=self.auth())).content


class SaysItsKey(Sketch):
    def checked(self, reply):
        if not reply.ok:
            raise RejectedError(f"refused: {self.auth()}")
        return reply


class LeavesItsKey(Sketch):
    async def order(self, call):
        with open("log.txt", "a") as log:
            log.write(str(self.auth()))
        return await super().order(call)


class KnowsOneErrorOnly(Sketch):
    def checked(self, reply):
        if not reply.ok:
            raise RejectedError("refused")
        return reply


class GivesUpAtOnce(Sketch):
    async def poll(self, job_id):
        try:
            return await super().poll(job_id)
        except Exception as error:
            raise JobFailedError("failed") from error


class CannotStop(Sketch):
    def stop(self, job_id):
        return None


class DropsTheSeed(Sketch):
    async def order(self, call):
        path, body = await super().order(call)
        return path, {**body, "seed": 1}


class ForgetsTheShape(Sketch):
    async def order(self, call):
        path, body = await super().order(call)
        return path, {name: value for name, value in body.items() if name not in ("width", "height")}
"""
FOUND_BY = {
    "SendsItAgain": "test_a_create_is_never_accepted_twice",
    "TakesA500ForARefusal": "test_a_create_is_never_accepted_twice",
    "ShowsItsKeyToEverybody": "test_one_image_is_made_and_is_on_disk",
    "SaysItsKey": "test_a_wrong_credential_is_said_without_showing_it",
    "LeavesItsKey": "test_one_image_is_made_and_is_on_disk",
    "KnowsOneErrorOnly": "test_a_failure_has_its_error",
    "GivesUpAtOnce": "test_a_look_that_fails_is_taken_again",
    "CannotStop": "test_a_call_that_is_stopped_ends_at_once_and_stops_its_job",
    "DropsTheSeed": "test_variants_have_consecutive_seeds_and_say_so",
    "ForgetsTheShape": "test_a_shape_is_kept_or_what_became_of_it_is_said",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What pytest says of all of them, each with the test that has to find it."""
    folder = tmp_path_factory.mktemp("defects")
    classes = "".join(f"\n\nclass Test{name}(Right):\n    backend = {name}\n" for name in FOUND_BY)
    (folder / "test_defects.py").write_text(DEFECTS + classes + "\ndel Right\n")
    chosen = [f"test_defects.py::Test{name}::{test}" for name, test in FOUND_BY.items()]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *chosen],
        cwd=folder,
        env={**__import__("os").environ, "PYTHONPATH": str(Path(nbimg.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    return done.stdout


@pytest.mark.parametrize("name", FOUND_BY)
def test_a_backend_with_a_defect_does_not_pass(report, name):
    lines = [line for line in report.split("\n") if line.startswith(("FAILED", "ERROR"))]
    assert [line for line in lines if f"::Test{name}::{FOUND_BY[name]}" in line], report[-3000:]
