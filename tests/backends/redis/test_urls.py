"""What a URL may be; and that nothing of it, a password least of all, is in a message about it."""

from __future__ import annotations

import subprocess
import sys
import traceback
from urllib.parse import quote

import pytest
from redis.asyncio.sentinel import SentinelConnectionPool

from dtimer import InvalidArgument
from dtimer.backends.redis.config import ClusterSettings, client_settings, connection_settings
from dtimer.backends.redis.urls import client_of, cluster_client_of, sentinel_client_of

BEFORE, AFTER = "Geheim", "Losung"


def refused(url: str) -> str:
    with pytest.raises(InvalidArgument, match=r"^url ") as caught:
        client_of(url)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "it may quote what was not to be quoted"
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {"host": "h"}),
        ("redis://h/", {"host": "h"}),
        ("redis://h/7", {"host": "h", "db": 7}),
        ("redis://h:1/7/", {"host": "h", "port": 1, "db": 7}),
        ("redis://h?db=3", {"host": "h", "db": 3}),
        ("redis://h/3?db=3", {"host": "h", "db": 3}),
        ("redis://", {}),
        ("redis:///2", {"db": 2}),
        ("redis://:6380/2", {"port": 6380, "db": 2}),
        ("REDISS://[::1]:7/2", {"host": "::1", "port": 7, "db": 2}),
        ("redis://ann:b:c@h", {"host": "h", "username": "ann", "password": "b:c"}),
        ("redis://h/0\n", {"host": "h", "db": 0}),
        ("unix:///run/x.sock", {"path": "/run/x.sock"}),
        ("unix:///run/a@b.sock?db=2", {"path": "/run/a@b.sock", "db": 2}),
        ("unix://ann:pw@/run/x.sock", {"path": "/run/x.sock", "username": "ann", "password": "pw"}),
        ("rediss://h?ssl_cert_reqs=none", {"host": "h", "ssl_cert_reqs": "none"}),
        ("redis://h?client_name=shop", {"host": "h", "client_name": "shop"}),
    ],
)
def test_a_url_means_what_it_says(url: str, expected: dict[str, object]) -> None:
    taken = dict(connection_settings(client_of(url)).arguments)
    taken.pop("socket_keepalive", None)

    assert taken == expected


@pytest.mark.parametrize("character", "#/?@[]%:&=+ é")
def test_a_password_that_is_percent_encoded_arrives(character: str) -> None:
    password = f"{BEFORE}{character}{AFTER}"

    settings = connection_settings(client_of(f"redis://:{quote(password, safe='')}@h/0"))

    assert settings.arguments["password"] == password


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
@pytest.mark.parametrize("raw", ["#", "/", "?", "@", "[", "]", "%", "%g1", "\t", "#a=b&", "?db=1&", "/1/", "[::1]"])
@pytest.mark.parametrize("place", ["redis", "user", "digits"])
def test_special_characters_are_refused_without_a_word_of_the_password(scheme: str, raw: str, place: str) -> None:
    """Read as redis-py reads it, the password is cut there, and its beginning is a port, and is quoted."""
    before = "6379" if place == "digits" else BEFORE
    credentials = f"{before}{raw}{AFTER}:x" if place == "user" else f":{before}{raw}{AFTER}"
    server = "/run/x.sock" if scheme == "unix" else "h:6379/0"

    problem = refused(f"{scheme}://{credentials}@{server}")

    assert "percent-encoded" in problem
    assert BEFORE not in problem
    assert AFTER not in problem


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize(
    "password", [BEFORE, "1234567", f"12{AFTER}", f"[{BEFORE}]", "-42", "0", f"{BEFORE}%23{AFTER}"]
)
@pytest.mark.parametrize("form", ["{}:{}", "{}:{}/0", "ann:b@{}:{}", "ann:b@{}:{}/0?db=0"])
def test_a_password_in_the_place_of_a_port_is_not_told(scheme: str, password: str, form: str) -> None:
    """Say because the server was forgotten behind it. Python's own message about the port quotes it."""
    problem = refused(f"{scheme}://{form.format('user', password)}")

    assert "port" in problem or "percent-encoded" in problem
    assert password not in problem.replace("65535", "").replace("from 1", "")
    assert BEFORE not in problem
    assert AFTER not in problem


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/prod",
        "redis://h/1/2",
        "redis://h//1",
        "redis://h/-1",
        "redis://h/+1",
        "redis://h/1_0",
        "redis://h/1.0",
        "redis://h/1 ",
        "redis://h/%31",
        "redis://h/\uff11",
        f"redis://h/{'9' * 5_000}",
        "redis://h?db=prod",
        "redis://h?db=-3",
        "redis://h?db=",
        "redis://h/prod?db=3",
        "unix:///run/x.sock?db=prod",
        f"redis://ann:12/{AFTER}",
    ],
)
def test_a_database_is_a_number(url: str) -> None:
    """Of `redis://h/prod` redis-py makes database 0, and of `redis://h/1/2` database 12, without a word."""
    problem = refused(url)

    assert "database by a number" in problem
    assert AFTER not in problem, "it may be a part of a password"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://h/0?db=5", "two databases"),
        ("redis://h?db=1&db=2", "twice"),
        ("redis://h:port/0", "port"),
        ("redis://h:0/0", "port"),
        ("redis://h:99999/0", "port"),
        ("redis://h?port=1", "port as an option"),
        ("redis://h?host=other", "host as an option"),
        ("unix://run/x.sock", "unix:///path"),
        ("unix://", "unix:///path"),
        ("redis://h/0#main", "percent-encoded"),
        ("redis://[h/0", "percent-encoded"),
        ("redis://h?socket_timeout=long", "redis-py refuses"),
        ("rediss://h?ssl_cert_reqs=perhaps", "redis-py refuses"),
        ("rediss://h?ssl_nonsense=1", "redis-py refuses"),
        *(
            (url, "must begin with redis://")
            for url in ["http://h", "h:6379", "localhost", "", "redis:h", " redis://h"]
        ),
        ("redis+sentinel://h", "must begin with redis://"),
    ],
)
def test_what_redis_py_would_guess_about_is_refused(url: str, problem: str) -> None:
    assert problem in refused(url)


def test_a_url_of_a_sentinel_and_of_a_cluster_is_read_alike() -> None:
    pool = sentinel_client_of("rediss://ann:p%23w@s/3", "main").connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    kwargs = pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"], kwargs["db"]) == ("ann", "p#w", 3)
    cluster = client_settings(cluster_client_of("redis://:p%23w@h:1"))
    assert isinstance(cluster, ClusterSettings)
    assert cluster.seeds == (("h", 1),)
    assert cluster.server.arguments["password"] == "p#w"

    for url in (f"redis://:{BEFORE}#{AFTER}@h", "redis://h/prod", "unix:///run/x.sock", f"http://:{BEFORE}@h"):
        for make in (lambda url: sentinel_client_of(url, "main"), cluster_client_of):
            with pytest.raises(InvalidArgument) as caught:
                make(url)
            assert BEFORE not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(InvalidArgument):
        cluster_client_of("redis://h/3")


@pytest.mark.once
@pytest.mark.parametrize(
    "command",
    [
        ["doctor"],
        ["doctor", "--cluster"],
        ["doctor", "--sentinel", "main"],
        ["demo", "--redis-url"],
        ["conformance"],
        ["migrate-partitions", "--to", "2"],
        ["migrate-partitions", "--to", "2", "--cluster"],
        ["migrate-partitions", "--to", "2", "--sentinel", "main"],
        ["purge", "--yes"],
        ["upgrade", "--yes"],
        ["clock-reset", "--yes"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("url", [f"redis://:{BEFORE}#{AFTER}@h/0", f"http://:{BEFORE}@{AFTER}"], ids=["raw", "scheme"])
def test_each_command_refuses_a_bad_url_with_one_clear_line(command: list[str], url: str) -> None:
    whole = [sys.executable, "-P", "-m", "dtimer", *command, url]
    ran = subprocess.run(whole, check=False, capture_output=True, text=True)

    assert ran.returncode == 2
    said = ran.stdout + ran.stderr
    assert "url " in said
    assert "Traceback" not in said
    assert BEFORE not in said
    assert AFTER not in said
    assert len(said.strip().splitlines()) == 1
