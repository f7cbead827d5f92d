"""Addresses of the HTTP API."""

from personalive.server.routes import health, jobs, media, sessions, webrtc

ROUTERS = (sessions.router, media.router, jobs.router, webrtc.router, health.router)
