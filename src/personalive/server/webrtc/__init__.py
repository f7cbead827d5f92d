"""Session descriptions, connections and tracks of WebRTC."""
