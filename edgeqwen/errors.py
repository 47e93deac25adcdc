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


class SessionError(EdgeqwenError):
    """A session file is missing, damaged, or belongs to another model."""


class SessionLockedError(SessionError):
    """The session is open for writing elsewhere."""


class DiskError(EdgeqwenError):
    """A file can't be written: the disk is full, the folder is read-only, or it isn't allowed."""


class CpuError(EdgeqwenError):
    """The CPU lacks the instructions that were asked for."""
