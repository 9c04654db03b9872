"""The bitrate that the share page encodes with: rate.js, driven by scripted reports."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser import open_page
from harness import RelayProcess, open_chromium

CLEAN = {"viewers": 4, "slow_viewers": 0, "frames_dropped": 0, "max_lag": 0.02, "buffered": 0}
DROPPING = CLEAN | {"slow_viewers": 2, "frames_dropped": 9, "max_lag": 1}
LATE = CLEAN | {"slow_viewers": 4, "max_lag": 0.8}
ONE_SLOW = DROPPING | {"slow_viewers": 1}
BACKED = CLEAN | {"buffered": 500_000}

RUN = """
    async (reports) => {
      const { Rate } = await import("/rate.js");
      const rate = new Rate({ smallest: 100_000, largest: 1_000_000 });
      return reports.map((report) => {
        if ("bounds" in report) {
          rate.rescale(report.bounds);
        } else {
          rate.observe(report);
        }
        return Math.round(rate.bitrate / 1000);
      });
    }
"""

Run = Callable[..., list[int]]


@pytest.fixture(scope="module")
def run(relay: RelayProcess) -> Iterator[Run]:
    """Give (report, seconds) to a rate of 100 to 1000 kbit/s; return its kbit/s each second."""
    with (
        open_chromium() as browser,
        open_page(browser, f"http://127.0.0.1:{relay.port}/") as page,
    ):

        def run(*reports: tuple[dict[str, Any], int]) -> list[int]:
            each = [report for report, count in reports for _ in range(count)]
            rates: list[int] = page.evaluate(RUN, each)
            return rates

        yield run


@pytest.mark.parametrize(
    ("trouble", "first"),
    [
        (DROPPING, [350, 350, 245, 245]),
        (LATE, [350, 350, 245, 245]),
        (BACKED, [500, 350, 350, 245]),
    ],
    ids=["drops", "lag", "buffer"],
)
def test_down_to_the_smallest(run: Run, trouble: dict[str, Any], first: list[int]) -> None:
    """While trouble lasts, the bitrate falls step by step to the smallest, and no further."""
    rates = run((trouble, 30))
    assert rates[:4] == first
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 100


def test_up_slowly(run: Run) -> None:
    """After trouble the bitrate stays for five clean seconds, then rises slowly to the largest."""
    rates = run((DROPPING, 1), (CLEAN, 60))
    assert rates[:6] == [350] * 6
    assert all(a <= b <= 1.06 * a for a, b in itertools.pairwise(rates))
    assert rates[-1] == 1000


def test_what_was_too_much(run: Run) -> None:
    """A rise that made trouble is tried again later than the first time."""
    rates = run((DROPPING, 1), (CLEAN, 8), (DROPPING, 1), (CLEAN, 11))
    assert rates[8] > rates[0]
    assert rates[9] < rates[8]
    assert rates[9:20] == [rates[9]] * 11
    assert rates[20] > rates[9]


def test_one_slow_viewer_of_many(run: Run) -> None:
    """For one slow viewer of many the bitrate falls to a quarter of the largest only."""
    assert run((ONE_SLOW, 30))[-1] == 250


def test_a_burst(run: Run) -> None:
    """A buffer that is full for a moment only, as after a keyframe, lowers nothing."""
    rates = run((CLEAN, 2), (BACKED, 1), (CLEAN, 2), (BACKED, 1), (CLEAN, 2))
    assert rates == sorted(rates)


def test_another_size(run: Run) -> None:
    """Pictures of another size have other bounds; the bitrate keeps its part of the largest."""
    half = {"bounds": {"smallest": 100_000, "largest": 500_000}}
    tiny = {"bounds": {"smallest": 100_000, "largest": 120_000}}
    assert run((DROPPING, 1), (half, 1), (tiny, 1)) == [350, 175, 100]
    assert run((half, 1), (CLEAN, 60))[-1] == 500
