"""What a relay asks of its own process: signals, open files, memory."""

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType

logger = logging.getLogger(__name__)

KEPT_MEMORY = 8 * 2**20
"""Size in bytes of blocks that the allocator may keep; it keeps at most two of them."""

FULL_COLLECTION_THRESHOLD = 1000
"""Collections of the middle generation before a full one (10 by default): some seven million
objects more than were freed, or 70,000 connections."""


@contextlib.contextmanager
def signals_call(callback: Callable[[], None], *names: str) -> Iterator[None]:
    """Call back on these signals, on every platform that has them and on every event loop."""
    loop = asyncio.get_running_loop()

    def handle(signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)

    numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    previous = {number: signal.signal(number, handle) for number in numbers}
    # Python runs `handle` only between its own instructions: a signal that comes as asyncio begins
    # to wait is not seen before the next event. The loop's own handlers wake it up.
    with contextlib.suppress(NotImplementedError):  # Windows, where every signal wakes the loop
        for number in numbers:
            loop.add_signal_handler(number, callback)
    try:
        yield
    finally:
        for number, handler in previous.items():
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, handler)


def raise_file_limit(needed: int) -> None:
    """Raise the soft limit of open files to the hard one; warn if even that is too low."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < needed:
        logger.warning("MAX_CONNECTIONS needs %d open files, the limit is %d", needed, hard)


def keep_freed_memory() -> None:
    """Let glibc keep the memory of one frame for the next.

    By default it returns a large block to the kernel as soon as it is free, and faults it in again
    for the next frame: two thirds of the CPU time at 128 KiB a frame. To free one larger block
    raises the bounds (mallopt(3), M_MMAP_THRESHOLD); another allocator does not care.
    """
    bytearray(KEPT_MEMORY)


def collect_rarely() -> None:
    """Keep the garbage collector from looking at every connection while thousands come in.

    A full collection with 5,000 viewers holds up every stream for 200 ms. There is next to nothing
    for it to find: a connection that ends frees itself, without cycles. The young generations, a
    millisecond each, stay as they are.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_COLLECTION_THRESHOLD)
