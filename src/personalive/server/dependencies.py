"""What routes are given: the desk, the doors, and the session of their address, its key checked."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from personalive.live.session import Session
from personalive.server.auth import Auth
from personalive.server.sessions import SessionRegistry


def the_desk(connection: HTTPConnection) -> SessionRegistry:
    """Of the app that serves the request."""
    return connection.app.state.desk


def the_doors(connection: HTTPConnection) -> Auth:
    """Of the app that serves the request."""
    return connection.app.state.doors


def own_session(connection: HTTPConnection, ident: str) -> Session:
    """The session of the address, for the holder of its key.

    Raises:
        RefusedError: no such session, or another key.
    """
    session = the_desk(connection).find(ident)
    the_doors(connection).check_key(connection, session)
    return session


Sessions = Annotated[SessionRegistry, Depends(the_desk)]
RequestAuth = Annotated[Auth, Depends(the_doors)]
OwnSession = Annotated[Session, Depends(own_session)]
