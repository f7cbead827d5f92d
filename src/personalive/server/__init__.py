"""The live server: sessions that share one engine, over WebSocket, WebRTC and HTTP."""
