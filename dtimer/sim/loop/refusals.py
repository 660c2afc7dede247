"""What leads out of the simulation, and is refused by name."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from dtimer.sim.errors import LEAVES, SimMisuse

SOCKETS: Final = "there is no network; let nodes talk through the simulated store, or stand in for the other side"
THREADS: Final = "there are no threads; call the function itself, or put a coroutine in its place"
SUBPROCESSES: Final = "there are no other programs; put a coroutine in its place"
SIGNALS: Final = "there are no signals; set an asyncio.Event, or let the simulation kill or pause the process"
FILES: Final = "no file can be waited for; use an asyncio.Queue"


def _refused(call: str, instead: str) -> Any:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise SimMisuse(call, LEAVES, instead)

    return refuse


class Refusals:
    """The methods of an event loop that a simulation does not have."""

    create_connection = _refused("loop.create_connection() (asyncio.open_connection())", SOCKETS)
    create_server = _refused("loop.create_server() (asyncio.start_server())", SOCKETS)
    create_unix_connection = _refused("loop.create_unix_connection() (asyncio.open_unix_connection())", SOCKETS)
    create_unix_server = _refused("loop.create_unix_server() (asyncio.start_unix_server())", SOCKETS)
    create_datagram_endpoint = _refused("loop.create_datagram_endpoint()", SOCKETS)
    connect_accepted_socket = _refused("loop.connect_accepted_socket()", SOCKETS)
    start_tls = _refused("loop.start_tls()", SOCKETS)
    sendfile = _refused("loop.sendfile()", SOCKETS)
    getaddrinfo = _refused("loop.getaddrinfo()", SOCKETS)
    getnameinfo = _refused("loop.getnameinfo()", SOCKETS)
    sock_recv = _refused("loop.sock_recv()", SOCKETS)
    sock_recv_into = _refused("loop.sock_recv_into()", SOCKETS)
    sock_recvfrom = _refused("loop.sock_recvfrom()", SOCKETS)
    sock_recvfrom_into = _refused("loop.sock_recvfrom_into()", SOCKETS)
    sock_sendall = _refused("loop.sock_sendall()", SOCKETS)
    sock_sendto = _refused("loop.sock_sendto()", SOCKETS)
    sock_sendfile = _refused("loop.sock_sendfile()", SOCKETS)
    sock_connect = _refused("loop.sock_connect()", SOCKETS)
    sock_accept = _refused("loop.sock_accept()", SOCKETS)
    add_reader = _refused("loop.add_reader()", FILES)
    add_writer = _refused("loop.add_writer()", FILES)
    remove_reader = _refused("loop.remove_reader()", FILES)
    remove_writer = _refused("loop.remove_writer()", FILES)
    connect_read_pipe = _refused("loop.connect_read_pipe()", FILES)
    connect_write_pipe = _refused("loop.connect_write_pipe()", FILES)
    subprocess_exec = _refused("loop.subprocess_exec() (asyncio.create_subprocess_exec())", SUBPROCESSES)
    subprocess_shell = _refused("loop.subprocess_shell() (asyncio.create_subprocess_shell())", SUBPROCESSES)
    run_in_executor = _refused("loop.run_in_executor() (asyncio.to_thread())", THREADS)
    set_default_executor = _refused("loop.set_default_executor()", THREADS)
    add_signal_handler = _refused("loop.add_signal_handler()", SIGNALS)
    remove_signal_handler = _refused("loop.remove_signal_handler()", SIGNALS)
