"""Dependencies of routes: parts of the app, and the session or job of the address once its key is checked.

All are coroutines: FastAPI would run plain functions on threads, and the parts are the event loop's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Query, WebSocket
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from personalive.live.session import Session
from personalive.server.auth import Auth, check_key, subprotocol_key
from personalive.server.jobs import Job, JobQueue
from personalive.server.sessions import SessionRegistry
from personalive.server.webrtc.connections import Connections

Role = Literal["driver", "viewer"]
BEARER = HTTPBearer(auto_error=False, description="The server's token, or the key of a session or job.")


async def get_auth(connection: HTTPConnection) -> Auth:
    """Return the app's access rules."""
    return connection.app.state.auth


async def get_sessions(connection: HTTPConnection) -> SessionRegistry:
    """Return the app's sessions."""
    return connection.app.state.sessions


async def get_jobs(connection: HTTPConnection) -> JobQueue:
    """Return the app's jobs."""
    return connection.app.state.jobs


async def get_connections(connection: HTTPConnection) -> Connections:
    """Return the app's WebRTC connections."""
    return connection.app.state.connections


async def given_key(
    connection: HTTPConnection, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
) -> str:
    """Return the bearer token, or the key among a WebSocket's subprotocols; empty where there is none."""
    return bearer.credentials if bearer else subprotocol_key(connection)


AppAuth = Annotated[Auth, Depends(get_auth)]
AppSessions = Annotated[SessionRegistry, Depends(get_sessions)]
AppJobs = Annotated[JobQueue, Depends(get_jobs)]
AppConnections = Annotated[Connections, Depends(get_connections)]
GivenKey = Annotated[str, Depends(given_key)]


async def require_token(auth: AppAuth, key: GivenKey) -> None:
    """Refuse those without the server's token."""
    auth.check_token(key)


async def check_socket(websocket: WebSocket, auth: AppAuth) -> None:
    """Check origin and rate of a WebSocket, which HTTP middleware does not see."""
    auth.check_origin(websocket)
    auth.check_rate(websocket)


async def own_session(ident: str, sessions: AppSessions, key: GivenKey) -> Session:
    """Return the session of the address to the holder of its key."""
    session = sessions.find(ident)
    check_key(key, session.key)
    return session


async def viewed_session(ident: str, sessions: AppSessions, key: GivenKey) -> Session:
    """Return the session of the address to the holder of its key or its view key."""
    session = sessions.find(ident)
    check_key(key, session.key, session.view_key)
    return session


async def socket_session(
    ident: str, sessions: AppSessions, key: GivenKey, role: Annotated[Role, Query()] = "driver"
) -> Session:
    """Return the session of a WebSocket's address to the holder of a key that allows the role."""
    return await (viewed_session if role == "viewer" else own_session)(ident, sessions, key)


async def own_job(ident: str, jobs: AppJobs, key: GivenKey) -> Job:
    """Return the job of the address to the holder of its key."""
    job = jobs.find(ident)
    check_key(key, job.key)
    return job


OwnSession = Annotated[Session, Depends(own_session)]
ViewedSession = Annotated[Session, Depends(viewed_session)]
SocketSession = Annotated[Session, Depends(socket_session)]
OwnJob = Annotated[Job, Depends(own_job)]
