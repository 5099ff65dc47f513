"""The data that flows through nbimg: what is asked, what a model takes, what came back.

Stage: the vocabulary of every other stage. Frozen values only, each of which survives a round trip
through JSON. Must not: do network or database work, or know any provider.
"""

from nbimg.types.capabilities import Capabilities, Field
from nbimg.types.image import EncodedImage, ImageRecord
from nbimg.types.request import InputImage, ModelRef, Request, placeless
from nbimg.types.result import Attempt, ErrorRecord, Result, Seconds, Status
from nbimg.types.size import Size, parse_ratio

__all__ = [
    "Attempt",
    "Capabilities",
    "EncodedImage",
    "ErrorRecord",
    "Field",
    "ImageRecord",
    "InputImage",
    "ModelRef",
    "Request",
    "Result",
    "Seconds",
    "Size",
    "Status",
    "parse_ratio",
    "placeless",
]
