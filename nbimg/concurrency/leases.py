"""The permits that machines share: leases in a Redis server, which end by themselves when nobody renews them.

Stage: below the semaphores, beside the lock files of one machine. Comes in: a name, and how many are
wanted. Goes out: whether they are held; a call when that has changed. Must not: wait for the server where
it is asked, or know who waits.

One thread of each semaphore talks to the server: it takes, gives back, and renews. Who finds all leases
taken stands in a queue there, so that kernels take turns; who was not heard of for a while has left it. The
server's clock counts, so that the machines' own may differ.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nbimg.concurrency.slots import nap_s
from nbimg.errors import DependencyMissingError, SettingError

if TYPE_CHECKING:
    import redis

__all__ = ["Leases", "is_server", "shown"]

log = logging.getLogger("nbimg")

#: Seconds after which a lease that nobody renews is free, and after which it is renewed.
LEASE_S, RENEWED_S = 15.0, 5.0
#: Who waits and was not heard of for so long has left the queue, in seconds.
GONE_S = 3.0
#: Longest wait for the server, in seconds; after a failure it is asked again after the second.
TIMEOUT_S, AGAIN_S = 2.0, 1.0

#: Takes leases for one who waits in turn. Keys: leases (by their end), the queue (by arrival), and who was
#: heard of when. Arguments: who, how many there may be, the lease's seconds, the queue's, ids to be taken.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[4])) do
    redis.call('ZREM', KEYS[2], gone)
    redis.call('ZREM', KEYS[3], gone)
end
redis.call('ZADD', KEYS[2], 'NX', now, ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[1])
local free = ARGV[2] - redis.call('ZCARD', KEYS[1]) - redis.call('ZRANK', KEYS[2], ARGV[1])
local taken = math.max(0, math.min(free, #ARGV - 4))
for number = 1, taken do
    redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[4 + number])
end
if taken > 0 then
    redis.call('ZREM', KEYS[2], ARGV[1])
    redis.call('ZREM', KEYS[3], ARGV[1])
end
for _, key in ipairs(KEYS) do
    redis.call('EXPIRE', key, math.ceil(ARGV[3]) * 4)
end
return taken
"""

#: Renews leases; one that had ended while the machine slept is there again, for its work goes on.
_RENEW = """
local clock = redis.call('TIME')
for number = 2, #ARGV do
    redis.call('ZADD', KEYS[1], clock[1] + ARGV[1], ARGV[number])
end
redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[1]) * 4)
"""


def is_server(scope: object) -> bool:
    """Whether a scope is the address of a Redis server: `redis://…`, or `rediss://…` over TLS."""
    return isinstance(scope, str) and scope.startswith(("redis://", "rediss://"))


def shown(url: str) -> str:
    """Return an address without its user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


class Leases:
    """The permits of one name that this process holds.

    Args:
        name: Of the semaphore; who gives the same name and server shares the permits.
        url: Of the server, as redis-py reads it: `redis://:PASSWORD@HOST:6379/0`.
        changed: Called from a thread when permits have come.

    Raises:
        DependencyMissingError: When redis-py is not installed.
        SettingError: When the server cannot be reached, or refuses.
    """

    def __init__(self, name: str, url: str, changed: Callable[[], None]) -> None:
        self.name, self.url = name, url
        self.changed = changed
        self._server = _connected(url)
        stem = f"nbimg:{{{name}}}"  # the braces keep them on one server of a cluster
        self._keys = (f"{stem}:leases", f"{stem}:queue", f"{stem}:heard")
        self._begin()

    def _begin(self) -> None:
        self._owner = uuid.uuid4().hex
        self._held: deque[str] = deque()
        self._back: deque[str] = deque()
        self._stir: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._keeper: threading.Thread | None = None
        self._wanted, self._limit = 0, 1
        self._queued = self._failed = False
        self._renew_at = 0.0
        self._end = weakref.finalize(
            self, _end, self._server, self._keys, self._owner, self._held, self._back
        )

    def fill(self, count: int, limit: int) -> bool:
        """Hold at least `count` of `limit`; False when they are still to come."""
        self._wanted, self._limit = count, limit
        if len(self._held) >= count:
            return True
        if self._keeper is None:
            keeper = threading.Thread(
                target=_keep, args=(weakref.ref(self), self._stir), name=f"nbimg {self.name}", daemon=True
            )  # fmt: skip
            with contextlib.suppress(RuntimeError):  # the interpreter ends
                keeper.start()
                self._keeper = keeper
        self._stir.put(None)
        return False

    def trim(self, count: int) -> None:
        """Hold at most `count`."""
        while len(self._held) > count:
            lease = self._held[-1]
            self._back.append(lease)  # first, lest Stop loses it in between
            self._held.remove(lease)  # not the last one: more may have come
        if self._back:
            self._stir.put(None)

    def rest(self) -> None:
        """Nobody here waits any longer."""
        self._wanted = 0
        if self._queued:
            self._stir.put(None)

    def forget(self) -> None:
        """In a forked child: all of it is the parent's."""
        self._end.detach()
        self._begin()

    def attend(self) -> float:
        """Do all that is to be done at the server; return after how many seconds to look again."""
        try:
            more = self._attended()
        except _failures() as error:
            if not self._failed:
                log.warning("semaphore %s: %s", self.name, _reason(self.url, error))
            self._failed = True
            return AGAIN_S
        if self._failed:
            log.info("semaphore %s: %s answers again", self.name, shown(self.url))
        self._failed = False
        if more:
            self.changed()
        return nap_s() if self._wanted > len(self._held) else RENEWED_S

    def _attended(self) -> bool:
        """Give back, renew, take; whether there are more now."""
        server = self._server
        while self._back:
            server.zrem(self._keys[0], self._back[0])
            self._back.popleft()
        if self._held and time.monotonic() >= self._renew_at:
            server.eval(_RENEW, 1, self._keys[0], str(LEASE_S), *self._held)
            self._renew_at = time.monotonic() + RENEWED_S
        missing = self._wanted - len(self._held)
        if missing <= 0:
            if self._queued:
                for key in self._keys[1:]:
                    server.zrem(key, self._owner)
                self._queued = False
            return False
        return self._taken(missing)

    def _taken(self, missing: int) -> bool:
        ids = [uuid.uuid4().hex for _ in range(missing)]
        self._queued = True
        if not self._held:
            self._renew_at = time.monotonic() + RENEWED_S
        try:
            number = int(
                self._server.eval(
                    _TAKE, 3, *self._keys, self._owner, self._limit, str(LEASE_S), str(GONE_S), *ids
                )
            )
        except BaseException:
            self._back.extend(ids)  # the answer is lost: they may have been taken
            raise
        if number:
            self._queued = False
            self._held.extend(ids[:number])
        return number > 0


def _keep(leases: weakref.ref[Leases], stir: queue.SimpleQueue[None]) -> None:
    """Attend to leases when they are stirred and when it is time, as long as somebody has them."""
    pause_s = 0.0
    while True:
        with contextlib.suppress(queue.Empty):
            stir.get(timeout=pause_s)
        while not stir.empty():
            stir.get()
        own = leases()
        if own is None:
            return
        pause_s = own.attend()
        del own


def _end(
    server: redis.Redis, keys: tuple[str, str, str], owner: str, held: deque[str], back: deque[str]
) -> None:
    """Give all back when the process ends, or the semaphore: others need not wait for the leases to end."""
    if held or back:
        with contextlib.suppress(*_failures()):
            server.zrem(keys[0], *held, *back)
            server.zrem(keys[1], owner)


def _connected(url: str) -> redis.Redis:
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise DependencyMissingError(
            "permits that machines share need redis, which is not installed.",
            hint="pip install 'nbimg[redis]'",
        ) from None
    once = Retry(NoBackoff(), 0)  # nobody knows whether one that is lost has taken
    try:
        server = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=once
        )
        server.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        raise SettingError(
            _reason(url, error), hint='scope="kernel" and scope="host" need no server.'
        ) from None
    return server


def _failures() -> tuple[type[BaseException], ...]:
    import redis

    return (redis.RedisError, OSError)


def _reason(url: str, error: BaseException) -> str:
    """Say what is wrong with a server, without the secrets of its address."""
    text, password = str(error).splitlines()[0] if str(error) else "", urlsplit(url).password
    if password:
        text = text.replace(password, "•••")
    text = text.rstrip(".") or type(error).__name__
    return f"permits cannot be shared over {shown(url)}: {text}."
