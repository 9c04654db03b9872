"""relayctl: publish a stream to relayd and watch one, from the command line."""
