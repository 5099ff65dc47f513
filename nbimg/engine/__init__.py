"""Requests to events to results: limits, retry, and the one place where backend, journal and store meet."""
