"""WebRTC: session descriptions, connections and tracks."""
