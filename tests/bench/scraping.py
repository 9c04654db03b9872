"""Measure what scraping `/metrics` each second costs the hot path, at the default limits, full.

    python tests/bench/scraping.py [--blocks N] [--seconds N] [--size BYTES]

One load runs all the time; a scraper is switched on in one block of each pair, by lot the first or
the second. With the defaults that is ten minutes of scraping within twenty. The server runs on one
core, the load generator and the scraper on another.
"""

import argparse
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from itertools import pairwise
from statistics import median, quantiles

import servers

from relayd.ctl import usage
from relayd.ctl.generator import Generator, raise_descriptor_limit
from relayd.ctl.load import Load, Result
from relayd.ctl.wire import LinkError

INTERVAL = 1.0
"""Seconds between two scrapes."""

ON, OFF = "on\n", "off\n"
FPS = 30
WARMUP = 3.0
SEED = 20
RESAMPLES = 2000


class Scraper:
    """A process that scrapes while it is told to. A context manager."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __enter__(self) -> "Scraper":
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--scrape", str(self._port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._process:
            self._process.kill()

    def switch(self, *, on: bool) -> None:
        """Begin to scrape, or end it."""
        assert self._process.stdin is not None
        self._process.stdin.write(ON if on else OFF)
        self._process.stdin.flush()

    def finish(self) -> list[float]:
        """Return the seconds that each scrape took."""
        output, _ = self._process.communicate()
        return [float(line) for line in output.split()]


def fetch(port: int) -> float:
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


def scrape(port: int) -> None:
    """Be the scraper's process: a line of input switches it, a line of output is a scrape."""
    wanted, ended = threading.Event(), threading.Event()

    def obey() -> None:
        for line in sys.stdin:
            if line == ON:
                wanted.set()
            else:
                wanted.clear()
        ended.set()
        wanted.set()

    threading.Thread(target=obey, daemon=True).start()
    while wanted.wait() and not ended.is_set():
        took = fetch(port)
        print(took, flush=True)
        ended.wait(max(0.0, INTERVAL - took))


def measure(
    load: Load, order: Sequence[bool], seconds: float
) -> tuple[list[float], Result, list[float]]:
    """Return the CPU µs per delivered frame of each block, the whole result, and the scrapes.

    Args:
        load: The load.
        order: Of each block, whether it is scraped.
        seconds: How long a block is.
    """
    admin_port = servers.free_port()
    server = servers.relayd("--admin-port", str(admin_port))
    marks: list[tuple[float, int]] = []
    with (
        servers.running(server, load.streams, load.viewers) as (pid, target),
        Scraper(admin_port) as scraper,
    ):

        def on_progress(elapsed: float, deliveries: int) -> None:
            if elapsed < len(marks) * seconds or len(marks) > len(order):
                return
            marks.append((usage.cpu_seconds(pid), deliveries))
            block = len(marks) - 1
            scraper.switch(on=block < len(order) and order[block])
            print(f"block {block} of {len(order)}", file=sys.stderr)

        with Generator(load, target, pid, on_progress) as generator:
            fetch(admin_port)  # Else an error would show in the scraper alone.
            result = generator.run()
        scrapes = scraper.finish()
    costs = [1e6 * (b[0] - a[0]) / (b[1] - a[1]) for a, b in pairwise(marks)]
    return costs, result, scrapes


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median: the percentile bootstrap."""
    lot = random.Random(SEED)
    medians = [median(lot.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    low, *_, high = quantiles(medians, n=40)
    return low, high


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    numbers = {"type": int, "metavar": "N", "help": "default: %(default)s"}
    parser.add_argument("--blocks", **numbers | {"default": 120})
    parser.add_argument("--seconds", **numbers | {"default": 10.0, "type": float})
    parser.add_argument("--streams", **numbers | {"default": servers.DEFAULT_STREAMS})
    parser.add_argument("--viewers", **numbers | {"default": servers.DEFAULT_VIEWERS})
    parser.add_argument("--size", **numbers | {"default": 32768, "metavar": "BYTES"})
    parser.add_argument("--scrape", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.blocks < 2 or options.blocks % 2 or options.seconds < INTERVAL:
        parser.error("blocks come in pairs, and each takes a second or more")
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse_options()
    if options.scrape is not None:
        scrape(options.scrape)
        return 0
    lot = random.Random(SEED)
    order = [on for _ in range(options.blocks // 2) for on in lot.sample((True, False), 2)]
    load = Load(
        streams=options.streams,
        viewers=options.viewers,
        size=options.size,
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
        f" {int(result.share * 1000) / 10:g} % delivered, p99 {result.p99:.1f} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
