"""The hot path, pure: frames, fan-out, and what each viewer gets when its network is slow."""
