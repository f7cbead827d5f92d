"""HTTP and WebSocket routes, a file per subject."""
