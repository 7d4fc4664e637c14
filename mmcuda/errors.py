"""The one exception that the command line turns into a single clear line."""


class UserError(ValueError):
    """Something the user gave is wrong: the message names it, what was expected and what came."""
