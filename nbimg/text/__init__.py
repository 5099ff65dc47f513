"""What a person writes → requests: cells, options, lists of tasks."""
