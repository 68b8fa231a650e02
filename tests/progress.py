"""What work is told to report to where nobody watches."""


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Say nothing."""
