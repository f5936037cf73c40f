"""The one exception that is meant for people."""


class UserError(Exception):
    """Bad input, told in one sentence that names what is wrong and the way out. `run.py` prints it and exits with code 2."""
