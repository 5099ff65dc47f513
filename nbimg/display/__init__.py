"""Turns results and events into what a person sees: HTML, one small JPEG, text.

Opens no file and knows no engine; bytes of pictures come in through a callable.
"""
