"""The exception that is a message to the user, and what the others say."""

import errno


class GdaError(Exception):
    """A mistake that the user can mend: one line with what was found, what is allowed, what to do."""


def one_line(error: Exception) -> str:
    """Say any error in one line; a full disk by what mends it."""
    text = " ".join(str(error).split())
    if isinstance(error, GdaError):
        return text
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or "No space left" in text or "os error 28" in text or "os error 27" in text:
        return (
            f"the disk is full ({text}): free some space and run the same command again; nothing half-written is left"
        )
    return f"{type(error).__name__}: {text} (--debug shows where)"
