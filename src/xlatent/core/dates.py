"""Dates of observations as Modified Julian Dates; astropy.time would take longer to load than a file to read."""

import re
from datetime import date as calendar_date

_MJD_OF_ORDINAL = -678576  # date(1858, 11, 17) is MJD 0
_TIME = r"(\d\d):(\d\d):(\d\d(?:\.\d*)?)"
_ISO = re.compile(rf"(\d{{4}})-(\d\d)-(\d\d)(?:[T ]{_TIME}Z?)?")
_OLD = re.compile(r"(\d\d)/(\d\d)/(\d\d)")  # of the last century (FITS standard 4.0, 9.1.1)
_CLOCK = re.compile(_TIME)


def modified_julian_date(date: str, time: str = "") -> float | None:
    """Turn a date of a FITS header into a Modified Julian Date, in the time system that it is in.

    Parameters
    ----------
    date : str
        ``2012-07-01``, ``2012-07-01T04:48:02`` or, of the last century, ``01/07/99``.
    time : str, optional
        Time of day where the date has none (keyword TIME-OBS), ``04:48:02``; midnight if not given.

    Returns
    -------
    float or None
        Days; None if the text is no such date.

    Examples
    --------
    >>> modified_julian_date("2012-07-01T12:00:00")
    56109.5
    """
    if iso := _ISO.fullmatch(date.strip()):
        year, month, day, *clock = iso.groups()
    elif old := _OLD.fullmatch(date.strip()):
        day, month, short = old.groups()
        year, clock = f"19{short}", [None]
    else:
        return None
    if clock[0] is None:
        given = _CLOCK.match(time.strip())
        clock = list(given.groups()) if given else ["0", "0", "0"]
    try:
        days = calendar_date(int(year), int(month), int(day)).toordinal() + _MJD_OF_ORDINAL
    except ValueError:
        return None
    hours, minutes, seconds = (float(part) for part in clock)
    return days + (hours + (minutes + seconds / 60) / 60) / 24
