"""The one exception that is a message to the user."""


class GdaError(Exception):
    """A mistake that the user can mend: one line with what was found, what is allowed, what to do."""
