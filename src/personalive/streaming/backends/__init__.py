"""Ways to run the networks of a stream: plainly, compiled, or by another runtime."""
