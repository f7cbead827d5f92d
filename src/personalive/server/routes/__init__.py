"""Addresses of the HTTP API."""

from personalive.server.routes import jobs, media, sessions, webrtc

ROUTERS = (sessions.router, media.router, jobs.router, webrtc.router)
