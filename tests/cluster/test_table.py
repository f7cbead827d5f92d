"""The ingress' table: each session counts once, whoever speaks of it first."""

from __future__ import annotations

import pytest

from personalive.cluster.config import ServeClusterConfig
from personalive.cluster.table import Replica, ReplicaState, Table
from personalive.live.errors import RefusedError
from personalive.live.session import SavedSession
from personalive.server.config import ServerConfig


def saved(ident: str) -> SavedSession:
    keys = {"key": f"key of {ident}", "view_key": f"view of {ident}"}
    return SavedSession(id=ident, **keys, controls={}, playing=True, generation=0, index=0)


def state(*idents: str, limit: int = 2) -> ReplicaState:
    return ReplicaState(
        ready=True, draining=False, step_s=0.1, limit=limit, jobs=[], sessions=[saved(i) for i in idents]
    )


@pytest.fixture
def table() -> Table:
    return Table(ServerConfig(), ServeClusterConfig())


@pytest.fixture
def replica(table: Table) -> Replica:
    found = table.replicas["a"] = Replica("a", "http://a", state())
    return found


def test_a_session_that_is_listed_before_its_opening_is_answered_counts_once(table: Table, replica: Replica):
    assert table.admit(None) is replica
    table.update(replica, state("one"))
    assert (replica.free, replica.sessions, table.sessions) == (1, set(), {})
    table.add(saved("one"), replica)
    replica.opening -= 1
    table.update(replica, state("one"))
    assert replica.free == 1
    assert replica.sessions == set(table.sessions.values())
    table.admit(None)  # there is room for another
    table.update(replica, state())
    assert (replica.sessions, table.sessions) == (set(), {})


def test_sessions_from_before_the_ingress_began_are_known_by_what_their_replica_says(table: Table, replica: Replica):
    table.update(replica, state("one", "two"))
    assert (set(table.sessions), replica.free) == ({"one", "two"}, 0)
    with pytest.raises(RefusedError, match="2 sessions are open"):
        table.admit(None)
    table.update(replica, state("two"))
    assert set(table.sessions) == {"two"}


@pytest.mark.parametrize(("slower", "counts"), [(1.0, [8, 8]), (1.2, [8, 8]), (3.0, [12, 4])])
def test_places_are_shared_by_speed_and_evenly_where_it_only_wavers(table: Table, slower: float, counts: list[int]):
    for name, step_s in (("a", 0.1), ("b", 0.1 * slower)):
        table.replicas[name] = Replica(name, f"http://{name}", state(limit=16).model_copy(update={"step_s": step_s}))
    for number in range(16):
        home = table.admit(None)
        table.add(saved(str(number)), home)
        home.opening -= 1
    found = [len(table.replicas[name].sessions) for name in "ab"]
    assert found == pytest.approx(counts, abs=1)
