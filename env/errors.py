"""The root of every error that a user can cause and mend."""


class UserError(Exception):
    """What was wrong, what was expected, and what to do next, in one clear sentence.

    The `autotts` command prints the message alone and exits with status 2; a library caller catches it.
    """
