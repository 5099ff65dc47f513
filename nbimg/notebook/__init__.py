"""The front end in IPython: magics, completion, live output. The only place that shows anything."""
