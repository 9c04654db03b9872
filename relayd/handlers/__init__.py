"""What relayd does for each kind of request: one coroutine or function for each."""
