"""Rate limits of the local servers: a bucket of tokens, from which refused calls take, too.

Stage: tests. In: a clock's seconds. Out: how long to wait.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CREATE_LIMIT", "LOW_CREDIT_LIMIT", "OTHER_LIMIT", "Bucket", "RateLimit"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many calls in a minute of the server's clock, and so many at once."""

    per_minute: float
    burst: int


CREATE_LIMIT = RateLimit(600, 600)
"""Documented: 600 creates a minute. That "short bursts above" are a minute's worth is assumed."""
OTHER_LIMIT = RateLimit(3000, 3000)
"""Documented: 3000 other calls a minute."""
LOW_CREDIT_LIMIT = RateLimit(6, 1)
"""Creates of an account with little credit, as its 429 says."""


class Bucket:
    """Tokens that come back over time; a refused call takes one too, as the service counts them."""

    def __init__(self, limit: RateLimit, now_s: float) -> None:
        """Begin with a full bucket at ``now_s`` of the server's clock."""
        self.limit = limit
        self.tokens = float(limit.burst)
        self.seen_s = now_s

    def take(self, now_s: float) -> float:
        """Take one; return 0 if there was one, else the seconds until there will be."""
        per_s = self.limit.per_minute / 60
        self.tokens = min(self.limit.burst, self.tokens + (now_s - self.seen_s) * per_s)
        self.seen_s = now_s
        # The debt has a floor: who stops hammering is served again after a minute at the latest.
        self.tokens = max(self.tokens - 1, -self.limit.per_minute)
        return 0.0 if self.tokens >= 0 else (1 - self.tokens) / per_s
