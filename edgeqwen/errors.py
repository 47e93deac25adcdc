"""Every exception that a user of edgeqwen can meet.

A message says what was found, what was expected, where, and what to do. The command line prints
it as one line; an application catches ``EdgeqwenError`` and shows it.
"""


class EdgeqwenError(Exception):
    """The root of all errors that edgeqwen raises on purpose."""


class FileFormatError(EdgeqwenError):
    """A file (GGUF, safetensors, JSON, vocabulary) is damaged, truncated or contradicts itself."""


class UnsupportedError(EdgeqwenError):
    """The file is sound, but holds something that this version can't run or convert."""


class OptionError(EdgeqwenError, ValueError):
    """An argument or option has a value that makes no sense, or that doesn't fit the model."""


class ContextFullError(EdgeqwenError):
    """The tokens don't fit into the context that the model was loaded with."""


class TemplateError(EdgeqwenError):
    """The chat template can't be parsed or rendered, or the conversation doesn't suit it."""


class ClosedError(EdgeqwenError):
    """The model was closed and can't be used any more."""


class CpuError(EdgeqwenError):
    """The CPU lacks the instructions that were asked for."""
