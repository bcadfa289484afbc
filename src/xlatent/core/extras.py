"""Packages that an installation may lack, because they belong to an extra."""

from collections.abc import Iterator
from contextlib import contextmanager

from xlatent.core.errors import XlatentError


@contextmanager
def requires_extra(extra: str, *packages: str) -> Iterator[None]:
    """Turn the failed import of an optional package into one sentence that says how to install it.

    Parameters
    ----------
    extra : str
        Name of the extra in ``pyproject.toml``.
    *packages : str
        Modules at the top of what is imported, such as ``sklearn``. A failure to import any other is a fault and is
        left alone.

    Raises
    ------
    XlatentError
        If one of the packages is not installed.

    Examples
    --------
    >>> with requires_extra("science", "sklearn"):
    ...     from sklearn.cluster import HDBSCAN
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise
        raise XlatentError(f'{package} is not installed, and this needs it: pip install "xlatent[{extra}]"') from None
