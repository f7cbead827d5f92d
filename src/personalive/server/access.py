"""What routes are given: the desk, the doors, and the session of their address, its key checked."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from personalive.server.desk import Desk
from personalive.server.doors import Doors
from personalive.server.session import Session


def the_desk(connection: HTTPConnection) -> Desk:
    """Of the app that serves the request."""
    return connection.app.state.desk


def the_doors(connection: HTTPConnection) -> Doors:
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


TheDesk = Annotated[Desk, Depends(the_desk)]
TheDoors = Annotated[Doors, Depends(the_doors)]
OwnSession = Annotated[Session, Depends(own_session)]
