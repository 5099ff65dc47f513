"""What the processes do that are killed: a batch of 100, or taking it up."""

import os

from nbimg import session
from nbimg.results import ResultSet
from nbimg.types import Request

TASKS = 100


def settle_in(folder, environ):
    os.environ.update(environ)
    os.chdir(folder)
    session._default = None


def send(folder, environ, told):
    """The batch that is killed on its way."""
    settle_in(folder, environ)
    requests = [
        Request(f"cat {n}", model="flux-dev", seed=1000 + n, n=2 if n % 10 == 0 else 1)
        for n in range(TASKS)
    ]
    job = session.default().submit(requests)
    told.send(job.id)
    told.send(outline(job.wait()))


def take_up(folder, environ, told, batch, remaining):
    """What the next kernel does; it may be killed as well."""
    settle_in(folder, environ)
    told.send(tuple(session.default().left()))
    told.send(outline(session.default().resume(batch, remaining=remaining).wait()))
    session.default().close()


def outline(results: ResultSet):
    """What crosses the pipe: a row a task."""
    return [
        (
            result.request.seed,
            result.status.value,
            [str(image.path) for image in result.images],
            [image.seed for image in result.images],
        )
        for result in results
    ]
