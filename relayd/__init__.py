"""relayd: a live stream relay over WebSockets."""

__version__ = "0.1.0"
