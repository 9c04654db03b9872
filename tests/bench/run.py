"""Measure relayd against its peers: every figure a ratio, both sides in one run, alternating.

    python tests/bench/run.py [--regime NAME ...] [--peers NAME,...] [--pairs N] [--seconds N]

Prints one Markdown table and a line on the machine; progress goes to standard error. The whole
of it takes most of an hour. The server runs on one core, the load generator on another.
"""

import argparse
import itertools
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import servers

from relayd.ctl.generator import Generator, raise_descriptor_limit
from relayd.ctl.load import Load, Result
from relayd.ctl.wire import LinkError

REGIMES = (
    "50x10-1k",
    "50x10-32k",
    "100x1-4k",
    "100x1-32k",
    "100x1-128k",
    "1x1000-4k",
    "100x10-32k",
    "50x10-mixed",
)
FPS = 30
HEADINGS = ("load", "peer", "CPU µs per frame: relayd", "peer", "ratio", "delivered")
HEADINGS += ("p50 ms", "p99 ms", "peak MB")


@dataclass(frozen=True)
class Regime:
    """A load by name: ``50x10-32k`` is 50 streams of 10 viewers each, frames of 32 KiB."""

    name: str
    streams: int
    viewers: int
    size: int | None

    @classmethod
    def parse(cls, name: str) -> "Regime":
        """Read a name; raise ValueError if it is none."""
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)-(?:([1-9]\d*)k|mixed)", name)
        if match is None:
            raise ValueError(name)
        size = int(match[3]) * 1024 if match[3] else None
        return cls(name, int(match[1]), int(match[2]), size)

    @property
    def title(self) -> str:
        """The name as the table shows it: 50×10, 32 KiB."""
        size = f"{self.size // 1024} KiB" if self.size else "mixed"
        return f"{self.streams}×{self.viewers}, {size}"


def measure(server: servers.Server, regime: Regime, options: argparse.Namespace) -> Result:
    """Start a server, put the load on it, stop it."""
    load = Load(
        streams=regime.streams,
        viewers=regime.viewers,
        size=regime.size,
        fps=FPS,
        duration=options.seconds,
        warmup=options.warmup,
    )
    with (
        servers.running(server, regime.streams, regime.viewers) as (pid, target),
        Generator(load, target, pid) as generator,
    ):
        return generator.run()


def compare(
    relayd: servers.Server, peer: servers.Server, regime: Regime, options: argparse.Namespace
) -> list[str]:
    """Measure both alternately; return the cells of a row."""
    ours, theirs = [], []
    for pair in range(options.pairs):
        for server, results in ((relayd, ours), (peer, theirs)):
            result = measure(server, regime, options)
            results.append(result)
            progress = f"{regime.name} {pair + 1}/{options.pairs}"
            print(f"{progress} {_describe(server, result)}", file=sys.stderr)
    ratio = median(_cpu(a) / (_cpu(b) or 1) for a, b in zip(ours, theirs, strict=True))
    sides = (ours, theirs)

    def both(figure: Callable[[Result], float | None], digits: int) -> str:
        return " / ".join(f"{median(figure(r) or 0 for r in side):.{digits}f}" for side in sides)

    return [
        regime.title,
        peer.name,
        f"{median(map(_cpu, ours)):.1f}",
        f"{median(map(_cpu, theirs)):.1f}",
        f"{ratio:.2f}",
        # The worst run, not a median: one lost frame counts.
        " / ".join(percent(min(result.share for result in side)) for side in sides),
        both(lambda result: result.p50, 2),
        both(lambda result: result.p99, 1),
        both(lambda result: (result.peak_memory or 0) / 1e6, 0),
    ]


def percent(share: float) -> str:
    """Show a share, never rounded up to 100 %."""
    return "100 %" if share == 1 else f"{int(share * 1000) / 10:.1f} %"


def _cpu(result: Result) -> float:
    return result.cpu_per_delivery or 0.0


def _describe(server: servers.Server, result: Result) -> str:
    late = f", {result.late} late" if result.late else ""
    return f"{server.name}: {_cpu(result):.2f} µs, {percent(result.share)}{late}"


def machine(versions: list[str]) -> str:
    """Say what the figures were measured on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    parts = [f"{os.cpu_count()} cores ({model})", f"{platform.system()} {platform.release()}"]
    parts.append(f"Python {platform.python_version()}")
    parts += [f"{name} {version(name)}" for name in ("relayd", "websockets", "uvloop")]
    return ", ".join(parts + versions)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    regime_help = f"of these or of their kind: {', '.join(REGIMES)}"
    parser.add_argument("--regime", nargs="+", default=REGIMES, metavar="NAME", help=regime_help)
    numbers = {"default": 5.0, "metavar": "N", "help": "default: %(default)g"}
    peers = ",".join(servers.PEERS)
    parser.add_argument("--peers", default=peers, metavar="NAME,...", help="default: %(default)s")
    parser.add_argument("--pairs", type=int, **numbers | {"default": 5})
    parser.add_argument("--seconds", type=float, **numbers)
    parser.add_argument("--warmup", type=float, **numbers | {"default": 1.0})
    options = parser.parse_args()
    try:
        options.regimes = [Regime.parse(name) for name in options.regime]
    except ValueError as exc:
        parser.error(f"no such regime: {exc}; they look like 50x10-32k and 50x10-mixed")
    options.peers = options.peers.split(",")
    if unknown := [name for name in options.peers if name not in servers.PEERS]:
        parser.error(f"no such peer: {', '.join(unknown)}")
    if options.pairs < 1 or options.seconds <= 0 or options.warmup < 0:
        parser.error("there is nothing to measure")
    return options


def prepare(names: list[str], folder: Path) -> dict[str, servers.Server | servers.Unavailable]:
    """Build the peers that can be built here."""
    peers: dict[str, servers.Server | servers.Unavailable] = {}
    for name in names:
        try:
            peers[name] = servers.PEERS[name](folder)
        except servers.Unavailable as exc:
            peers[name] = exc
            print(f"{name}: {exc}", file=sys.stderr)
    return peers


def main() -> int:
    """Run the comparison; return the exit code, 1 where a server that is installed failed."""
    options = parse_options()
    # The servers inherit it.
    raise_descriptor_limit(max(r.streams * (r.viewers + 1) for r in options.regimes) + 100)
    relayd = servers.relayd()
    rows, peers, failed = [], {}, False
    with tempfile.TemporaryDirectory(prefix="relayd-bench-") as folder, suppress(KeyboardInterrupt):
        peers = prepare(options.peers, Path(folder))
        for regime, (name, peer) in itertools.product(options.regimes, peers.items()):
            cells = [regime.title, name]
            if isinstance(peer, servers.Unavailable):
                cells.append(str(peer))
            else:
                try:
                    cells = compare(relayd, peer, regime, options)
                except (LinkError, OSError, servers.Unavailable) as exc:
                    failed = True
                    cells.append(f"failed: {exc}")
            rows.append(cells + [""] * (len(HEADINGS) - len(cells)))

    for row in (HEADINGS, ["---"] * len(HEADINGS), *rows):
        print(f"| {' | '.join(row)} |")
    print(
        f"\nMedians of {options.pairs} alternating pairs of {options.seconds:g} s at {FPS} frames a"
        " second, relayd / peer where a cell has two figures; the ratio is the pairs' median."
    )
    versions = [peer.version for peer in peers.values() if isinstance(peer, servers.Server)]
    print(machine([text for text in versions if text]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
