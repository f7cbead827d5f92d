"""The stream: schedule, conditioning, keyframes, and the one engine that every door uses."""
