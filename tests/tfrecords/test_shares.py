"""Shares cover a job, each thing once."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.shares import JobShare, share_of


@given(st.integers(0, 500), st.integers(1, 60))
def test_the_shares_of_a_job_are_all_of_it_once_and_nearly_equal(length: int, total: int) -> None:
    shares = [share_of(f"{number}/{total}") for number in range(1, total + 1)]
    items = [*range(length)]
    assert sorted(item for share in shares for item in share.spread(items)) == items
    assert [place for share in shares for place in share.span(length)] == items
    for sizes in ([len(share.spread(items)) for share in shares], [len(share.span(length)) for share in shares]):
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "-1/3", "1/0", "a/b", "1/3/5", " 1/3", "1.0/3", "१/3", "1/9999999999"])
def test_anything_else_is_no_share(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no share: give, for the third of a hundred, 3/100"):
        share_of(text)


def test_a_share_is_written_as_it_is_read() -> None:
    assert (share_of("03/100"), str(share_of("3/100"))) == (JobShare(3, 100), "3/100")
