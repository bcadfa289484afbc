"""Dates of FITS headers become the Modified Julian Dates that astropy makes of them."""

from datetime import datetime

import pytest
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st

from xlatent.core.dates import modified_julian_date


@given(st.datetimes(min_value=datetime(1960, 1, 1)))
def test_as_astropy_has_it(moment):
    text = moment.isoformat(timespec="milliseconds")
    assert modified_julian_date(text) == pytest.approx(Time(text, scale="tt").mjd, abs=1e-9)


@pytest.mark.parametrize(
    ("date", "time", "mjd"),
    [
        ("1858-11-17", "", 0.0),
        ("2012-07-01", "", 56109.0),
        ("2012-07-01", "06:00:00.0", 56109.25),
        (" 2012-07-01T12:00:00Z ", "06:00:00", 56109.5),
        ("31/05/96", "04:33:35", 50234.18998842593),
        ("2016-12-31T23:59:60.5", "", 57754.0 + 0.5 / 86400),
        ("", "04:33:35", None),
        ("2012-02-30", "", None),
        ("about 2012", "", None),
        ("2012-07", "", None),
    ],
)
def test_forms(date, time, mjd):
    assert modified_julian_date(date, time) == (mjd if mjd is None else pytest.approx(mjd, abs=1e-9))
