"""The loop thread, waiting across loops, and permits of a kernel or a machine."""
