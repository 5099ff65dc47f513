"""Which model makes a request, with which parameters, for how much."""
