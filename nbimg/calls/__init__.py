"""One call, from its requests to its results: made, watched, taken up again."""
