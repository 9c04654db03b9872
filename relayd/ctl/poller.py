"""Which sockets can be read or written: epoll, and `selectors` where that is missing."""

import select
import selectors
import sys

from .link import Link

EVENTS = 64
"""Links served before the clock is looked at again: frames must go out when they are due."""


class SelectorPoller:
    """Calls links that the kernel has something for, by way of `selectors`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, link: Link) -> None:
        """Call the link's `readable` from now on, until it is no longer open."""
        self._selector.register(link.sock, selectors.EVENT_READ, link)

    def want_write(self, link: Link, wanted: bool) -> None:
        """Call the link's `writable`, or no longer."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        self._selector.modify(link.sock, events, link)

    def serve(self, timeout: float) -> bool:
        """Wait up to this many seconds, call links; return whether there were any."""
        ready = self._selector.select(max(timeout, 0))
        for key, events in ready:
            link: Link = key.data
            if events & selectors.EVENT_WRITE:
                link.writable()
            if events & selectors.EVENT_READ:
                link.readable()
            if not link.is_open:
                self._selector.unregister(link.sock)
        return bool(ready)

    def close(self) -> None:
        """Forget all links."""
        self._selector.close()


if sys.platform == "linux":

    class EpollPoller:
        """Calls links that the kernel has something for, by way of epoll."""

        def __init__(self) -> None:
            # Before the sockets: select() takes no descriptor from 1024 on.
            self._epoll = select.epoll()
            self._links: dict[int, Link] = {}

        def add(self, link: Link) -> None:
            """Call the link's `readable` from now on, until it is no longer open."""
            self._links[link.sock.fileno()] = link
            self._epoll.register(link.sock.fileno(), select.EPOLLIN)

        def want_write(self, link: Link, wanted: bool) -> None:
            """Call the link's `writable`, or no longer."""
            events = select.EPOLLIN | select.EPOLLOUT if wanted else select.EPOLLIN
            self._epoll.modify(link.sock.fileno(), events)

        def serve(self, timeout: float) -> bool:
            """Wait up to this many seconds, call links; return whether there were any."""
            # The timeout of epoll counts in milliseconds, that of select() in microseconds.
            if timeout > 0:
                select.select((self._epoll,), (), (), timeout)
            ready = self._epoll.poll(0, EVENTS)
            for descriptor, events in ready:
                link = self._links[descriptor]
                if events & select.EPOLLOUT:
                    link.writable()
                if events & ~select.EPOLLOUT:
                    link.readable()
                if not link.is_open:
                    self._epoll.unregister(descriptor)
                    del self._links[descriptor]
            return bool(ready)

        def close(self) -> None:
            """Forget all links."""
            self._epoll.close()

    Poller = EpollPoller
else:
    Poller = SelectorPoller
