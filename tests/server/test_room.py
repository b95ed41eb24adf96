"""Room knows only what is open, and is never far above its bound."""

from __future__ import annotations

from lostwax.server.gateway.room import RESERVED_FILES, SPARE, Room


class _Connection:
    def __init__(self, address: str = "a") -> None:
        self.address = address
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


def _busy(room: Room, count: int) -> list[_Connection]:
    """Connections whose requests are under way."""
    made = [_Connection() for _ in range(count)]
    for connection in made:
        room.enter(connection)
        room.proceed(connection)
    return made


def test_a_closed_connection_that_is_said_to_wait_is_not_closed_again() -> None:
    room = Room(2)
    gone, waiting, new = (_Connection() for _ in range(3))
    room.enter(gone)
    room.leave(gone)
    room.wait(gone)  # its last answer is written after its end
    room.enter(waiting)
    room.enter(_Connection())
    assert room.enter(new)
    assert (gone.is_aborted, waiting.is_aborted, new.is_aborted) == (False, True, False)


def test_what_proceeds_is_left_alone_and_what_waits_again_is_not() -> None:
    room = Room(2)
    first, second = _busy(room, 2)
    assert not room.enter(_Connection("b"))
    room.wait(first)
    assert not second.is_aborted
    room.enter(_Connection("b"))
    room.enter(_Connection("b"))
    assert not second.is_aborted


def test_a_busy_room_keeps_few_connections_above_its_bound() -> None:
    room = Room(2)
    busy = _busy(room, 2)
    more = [_Connection(f"c{i}") for i in range(RESERVED_FILES)]
    has_room: list[bool] = []
    for connection in more:
        has_room.append(room.enter(connection))
        room.proceed(connection)
    assert not any(has_room)
    assert not any(connection.is_aborted for connection in busy)
    kept = sum(not connection.is_aborted for connection in more)
    assert kept == SPARE
    # The other reserved files are the engine's, the log's and those of bodies that are read.
    assert kept <= RESERVED_FILES // 2


def test_connections_that_end_leave_their_place() -> None:
    room = Room(2)
    for _ in range(100):
        for connection in _busy(room, 2):
            room.leave(connection)
    assert room.enter(_Connection())
