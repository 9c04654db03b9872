"""``python -m relayd.ctl`` is ``relayctl``."""

from .cli import main

main()
