"""Measure what scraping `/metrics` each second costs the hot path, at the default limits, full.

    python tests/bench/scraping.py [--regime NAME] [--blocks N] [--seconds N]

One load runs all the time; a process scrapes in one block of each pair, by lot the first or the
second. With the defaults that is ten minutes of scraping within twenty. The server runs on one
core, the load generator and the scraper on another.
"""

import argparse
import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from statistics import median, quantiles

import servers
from run import FPS, Regime, percent

from relayd.ctl import usage
from relayd.ctl.generator import Generator, raise_descriptor_limit
from relayd.ctl.load import Load, Result
from relayd.ctl.wire import LinkError

INTERVAL = 1.0
"""Seconds between two scrapes."""

WARMUP = 3.0
SEED = 20
RESAMPLES = 2000


def scrape(port: int) -> float:
    """Scrape once; return the seconds that it took.

    Raises:
        Unavailable: If relayd has no metrics.
    """
    began = time.monotonic()
    try:
        with urllib.request.urlopen(f"http://{servers.HOST}:{port}/metrics") as response:
            response.read()
    except urllib.error.HTTPError as exc:
        raise servers.Unavailable(exc.read().decode().strip()) from None
    return time.monotonic() - began


def measure(
    load: Load, order: Sequence[bool], seconds: float
) -> tuple[list[float], Result, list[float]]:
    """Return the CPU µs per delivered frame of each block, the whole result, and the scrapes.

    Args:
        load: The load.
        order: Of each block, whether it is scraped.
        seconds: How long a block is.
    """
    port = servers.free_port()
    server = servers.relayd("--admin-port", str(port))
    marks: list[tuple[float, int]] = []
    scrapes: list[Future[float]] = []
    due = 0.0
    with (
        servers.running(server, load.streams, load.viewers) as (pid, target),
        # A fork would have the generator's sockets.
        ProcessPoolExecutor(1, get_context("spawn")) as scraper,
    ):

        def on_progress(elapsed: float, deliveries: int) -> None:
            nonlocal due
            if len(marks) <= len(order) and elapsed >= len(marks) * seconds:
                print(f"block {len(marks)} of {len(order)}", file=sys.stderr)
                marks.append((usage.cpu_seconds(pid), deliveries))
                due = elapsed
            block = len(marks) - 1
            if 0 <= block < len(order) and order[block] and elapsed >= due:
                scrapes.append(scraper.submit(scrape, port))
                due += INTERVAL

        with Generator(load, target, pid, on_progress) as generator:
            scraper.submit(scrape, port).result()  # That it can be done, before it takes long.
            result = generator.run()
    costs = [1e6 * (b[0] - a[0]) / (b[1] - a[1]) for a, b in pairwise(marks)]
    return costs, result, [future.result() for future in scrapes]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median: the percentile bootstrap."""
    lot = random.Random(SEED)
    medians = [median(lot.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    low, *_, high = quantiles(medians, n=40)
    return low, high


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    full = f"{servers.DEFAULT_STREAMS}x{servers.DEFAULT_VIEWERS}-32k"
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    numbers = {"metavar": "N", "help": "default: %(default)s"}
    parser.add_argument("--regime", default=full, metavar="NAME", help="default: %(default)s")
    parser.add_argument("--blocks", type=int, default=120, **numbers)
    parser.add_argument("--seconds", type=float, default=10.0, **numbers)
    options = parser.parse_args()
    try:
        options.regime = Regime.parse(options.regime)
    except ValueError as exc:
        parser.error(f"no such regime: {exc}; they look like {full} and 50x10-mixed")
    if options.blocks < 2 or options.blocks % 2 or options.seconds < INTERVAL:
        parser.error("blocks come in pairs, and each takes a second or more")
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse_options()
    lot = random.Random(SEED)
    order = [on for _ in range(options.blocks // 2) for on in lot.sample((True, False), 2)]
    load = Load(
        streams=options.regime.streams,
        viewers=options.regime.viewers,
        size=options.regime.size,
        fps=FPS,
        duration=options.blocks * options.seconds + 1,
        warmup=WARMUP,
    )
    raise_descriptor_limit(load.streams * (load.viewers + 1) + 100)  # The server inherits it.
    try:
        costs, result, scrapes = measure(load, order, options.seconds)
    except (LinkError, OSError, servers.Unavailable) as exc:
        print(f"scraping.py: {exc}", file=sys.stderr)
        return 1
    scraped, quiet = (
        [cost for cost, on in zip(costs, order, strict=True) if on is state]
        for state in (True, False)
    )
    ratios = [on / off for on, off in zip(scraped, quiet, strict=True)]
    low, high = interval(ratios)
    print(
        f"CPU µs per delivered frame: {median(scraped):.2f} scraped each second,"
        f" {median(quiet):.2f} not\n"
        f"ratio {median(ratios):.3f}, 95 % between {low:.3f} and {high:.3f}:"
        f" the median of {len(ratios)} pairs of {options.seconds:g} s\n"
        f"{len(scrapes)} scrapes, {1000 * median(scrapes):.1f} ms each;"
        f" {percent(result.share)} delivered, p99 {result.p99:.1f} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
