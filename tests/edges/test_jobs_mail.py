"""Mails about jobs, by a real mail server: when they come, that none is lost and none comes twice, what it refuses."""

from __future__ import annotations

import datetime
import email
import email.policy
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import JobFailed, JobManager, RequestError, Server, ServerProxy, Settings, Store, ThreadEngine
from grid.jobs.mails.mailer import Mailer
from tests.edges.jobs_services import ALL, Fail, Square

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
DAY = 86400.0


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Inbox:
    """A real mail server on this machine. `answers` are what it says to the next letters, before it takes any."""

    def __init__(self, port: int = 0, **options: Any) -> None:
        controller = pytest.importorskip("aiosmtpd.controller")
        if not port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
        self.port = port
        self.letters: list[Any] = []
        self.answers: list[str] = []
        self.rcpt_answers: list[str] = []
        self.on_data: Callable[[], None] = lambda: None
        self._controller = controller.Controller(self, hostname="127.0.0.1", port=port, **options)
        self._controller.start()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if self.rcpt_answers:
            return self.rcpt_answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.answers:
            return self.answers.pop(0)
        letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.letters.append((envelope.rcpt_tos, letter))
        self.on_data()
        return "250 OK"

    def subjects(self) -> list[str]:
        return [str(letter["Subject"]) for _, letter in self.letters]

    def stop(self) -> None:
        self._controller.stop()

    def settings(self, **more: Any) -> Settings:
        values = {"mail_host": "127.0.0.1", "mail_port": self.port, "mail_from": "grid@lab.example", "tick_s": 0.05}
        return Settings(**{**values, **more})


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.stop()


class Managed:
    """A manager over a store, with a clock of its own."""

    def __init__(self, place: Path, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.store = Store(place)
        self.manager = JobManager(self.store, ThreadEngine(1, 2), settings, clock=clock)
        self.manager.start()
        self.service = ServerProxy(Server(self.manager), "mara")
        self.service.register(*ALL)

    def __enter__(self) -> Managed:
        self.service.__enter__()
        return self

    def __exit__(self, *arguments: Any) -> None:
        self.service.__exit__(*arguments)
        self.service.close()
        self.manager.stop()


@pytest.mark.row("J12", "P06")
def test_an_immediate_mail_tells_of_the_end(inbox: Inbox, tmp_path: Path) -> None:
    with Managed(tmp_path / "s", inbox.settings()) as managed:
        Square.submit(value=7, tags=["name=sevens"], notify="boss@x.org", mails="immediate").wait(LIMIT_S)
        until(lambda: inbox.letters)
        managed.service.set_email("mara@x.org", "immediate")
        with pytest.raises(JobFailed):
            Fail.submit(text="too bad").wait(LIMIT_S)
        until(lambda: len(inbox.letters) == 2)
        with pytest.raises(RequestError):
            managed.service.set_email("not an address")
        with pytest.raises(RequestError):
            managed.service.set_email("mara@x.org", "often")
        with pytest.raises(RequestError):
            Square.submit(value=1, notify="a@b", mails="sometimes")
        managed.service.set_email(None)
        Square.submit(value=8).wait(LIMIT_S)
        managed.service.set_email("mara@x.org", "off")
        Square.submit(value=9).wait(LIMIT_S)
    (to, first), (other, failed) = inbox.letters
    assert to == ["boss@x.org"] and first["Subject"] == "[grid] sevens: complete"
    assert first["From"] == "grid@lab.example"
    plain, html = first.iter_parts()
    assert "result   49" in plain.get_content() and ">49<" in html.get_content()
    assert other == ["mara@x.org"] and "too bad" in failed.get_body(("plain",)).get_content()


@pytest.mark.row("J13", "J12")
def test_a_digest_comes_once_a_day_also_after_a_restart_and_nothing_if_nothing_happened(
    inbox: Inbox, tmp_path: Path
) -> None:
    clock = Clock()
    with Managed(tmp_path / "s", inbox.settings(), clock) as managed:
        managed.service.set_email("mara@x.org")  # daily, as nothing else is said
        for value in range(3):
            Square.submit(value=value).wait(LIMIT_S)
        again = managed.manager.mailer.look()
        assert not inbox.letters and again is not None and clock.now < again <= clock.now + 25 * 3600
    assert not inbox.letters  # stopping does not hurry it
    clock.now = again + 1
    with Managed(tmp_path / "s", inbox.settings(), clock) as managed:
        until(lambda: inbox.letters)
        assert inbox.subjects() == ["[grid] 3 jobs ended: 3 complete"]
        until(lambda: not managed.store.count_notes())
        for _ in range(3):
            clock.now += DAY
            assert managed.manager.mailer.look() is None
        Square.submit(value=9).wait(LIMIT_S)
        managed.service.set_email("mara@x.org", "hourly")  # counts for what waits, too
        clock.now += 3601
        managed.manager.mailer.look()
        assert len(until(lambda: inbox.letters)) == 2
        Square.submit(value=9).wait(LIMIT_S)
        managed.service.set_email("mara@x.org", "off")
        clock.now += DAY
        assert managed.manager.mailer.look() is None
    assert len(inbox.letters) == 2


KILLED = """
import sys
from tests.edges.test_jobs_mail import Managed, Inbox
from tests.edges.jobs_services import Square
from grid.jobs import Settings
settings = Settings(mail_host="127.0.0.1", mail_port=int(sys.argv[2]), tick_s=0.05)
managed = Managed(sys.argv[1], settings)
with managed:
    managed.service.set_email("mara@x.org", sys.argv[3])
    for value in range(10**6):
        job = Square.submit(value=value)
        job.wait(60)
        print(job.id, flush=True)
"""


def killed(place: Path, port: int, mails: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(place), str(port), mails], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.row("J13", "J01")
def test_a_digest_survives_kill_9_with_every_job_that_was_seen_to_end(inbox: Inbox, tmp_path: Path) -> None:
    child = killed(tmp_path / "s", inbox.port, "daily")
    seen = [child.stdout.readline().strip() for _ in range(20)]
    child.send_signal(signal.SIGKILL)
    seen += child.stdout.read().split()
    child.wait()
    child.stdout.close()
    store = Store(tmp_path / "s")
    try:
        ended = {job.id for job in store.load() if job.state.ended}
        mailer = Mailer(store, inbox.settings(), store.users, lambda: time.time() + 2 * DAY)
        assert mailer.look() is None and mailer.look() is None
    finally:
        store.close()
    ((to, letter),) = inbox.letters
    text = letter.get_body(("plain",)).get_content()
    told = {line.split()[-1] for line in text.splitlines() if line.startswith("complete")}
    assert to == ["mara@x.org"] and told == ended >= set(seen)


@pytest.mark.row("J12", "J13")
def test_a_kill_between_sending_and_recording_makes_the_same_mail_come_again(inbox: Inbox, tmp_path: Path) -> None:
    children: list[Any] = []
    inbox.on_data = lambda: children[0].send_signal(signal.SIGKILL)  # it has the letter, and its yes is never heard
    children.append(killed(tmp_path / "s", inbox.port, "immediate"))
    children[0].wait(LIMIT_S)
    children[0].stdout.close()
    inbox.on_data = lambda: None
    assert len(inbox.letters) == 1
    store = Store(tmp_path / "s")
    try:
        Mailer(store, inbox.settings(mail_from="grid@localhost"), store.users).look()
        assert not store.count_notes()
    finally:
        store.close()
    first = inbox.letters[0][1]
    (again,) = [each for _, each in inbox.letters[1:] if each["Message-ID"] == first["Message-ID"]]
    for kind in ("plain", "html"):
        assert again.get_body((kind,)).get_content() == first.get_body((kind,)).get_content()
    assert again.items()[:5] == first.items()[:5]  # the date, too
    ids = [each["Message-ID"] for _, each in inbox.letters]
    assert len(set(ids)) == len(ids) - 1


@pytest.fixture
def noted(tmp_path: Path) -> Iterator[tuple[Store, Clock]]:
    """A store with the end of one job to be told of."""
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = Settings(mail_host="127.0.0.1", mail_port=free.getsockname()[1], mail_retry_s=1e6)
    with Managed(tmp_path / "s", nobody, clock):
        Square.submit(value=7, notify="boss@x.org", mails="immediate").wait(LIMIT_S)
    store = Store(tmp_path / "s")
    yield store, clock
    store.close()


@pytest.mark.row("J12", "J13")
def test_a_mail_server_that_is_down_is_tried_again_with_longer_pauses(
    noted: tuple[Store, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    store, clock = noted
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mailer = Mailer(store, Settings(mail_host="127.0.0.1", mail_port=port), store.users, clock)
    pauses = []
    for _ in range(9):
        again = mailer.look()
        assert again is not None and mailer.look() == again  # not before its time
        pauses.append(round(again - clock.now))
        clock.now = again
    assert pauses == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert "ConnectionRefusedError" in caplog.text
    inbox = Inbox(port)
    try:
        assert mailer.look() is None and mailer.look() is None
    finally:
        inbox.stop()
    assert len(inbox.letters) == 1 and not store.count_notes()


@pytest.mark.row("J12", "J13")
def test_a_mail_is_tried_again_after_a_no_for_now_and_given_up_in_the_end(
    inbox: Inbox, noted: tuple[Store, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    store, clock = noted
    mailer = Mailer(store, inbox.settings(), store.users, clock)
    inbox.answers, inbox.rcpt_answers = ["452 mailbox full"], ["450 greylisted"]
    for pause in (30, 60):
        again = mailer.look()
        assert again is not None and round(again - clock.now) == pause and store.count_notes()
        clock.now = again
    assert "450 greylisted" in caplog.text and "452 mailbox full" in caplog.text
    clock.now += 5 * DAY
    inbox.answers = ["452 still full"]
    assert mailer.look() is None and not store.count_notes() and not inbox.letters
    assert "given up" in caplog.text and "job-1" in caplog.text


@pytest.mark.row("J12")
@pytest.mark.parametrize("where", ["answers", "rcpt_answers"])
def test_what_is_refused_for_good_is_not_tried_again(
    where: str, inbox: Inbox, noted: tuple[Store, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    store, clock = noted
    setattr(inbox, where, ["550 no such user here"])
    mailer = Mailer(store, inbox.settings(), store.users, clock)
    assert mailer.look() is None and not store.count_notes() and not inbox.letters
    assert "refused for good" in caplog.text and "550 no such user" in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


@pytest.mark.row("J12")
def test_over_starttls_with_a_login_and_never_in_clear(
    certificate: tuple[Path, ssl.SSLContext],
    noted: tuple[Store, Clock],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    smtp = pytest.importorskip("aiosmtpd.smtp")
    store, clock = noted
    path, context = certificate
    logins: list[Any] = []

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        logins.append((data.login, data.password))
        return smtp.AuthResult(success=data.password == b"right-word", handled=False)

    file = tmp_path / "login"
    file.write_text("grid\nwrong-word\n")
    file.chmod(0o600)
    plain = Inbox()
    safe = Inbox(tls_context=context, require_starttls=True, auth_required=True, authenticator=check)
    secure = {"mail_host": "localhost", "mail_tls": "starttls", "mail_ca": str(path), "mail_login": str(file)}
    try:
        unsafe = Mailer(store, plain.settings(**secure), store.users, clock)
        assert unsafe.look() is not None and not plain.letters  # it has no TLS: nothing is sent, no password either
        stranger = Mailer(store, safe.settings(**{**secure, "mail_ca": ""}), store.users, clock)
        assert stranger.look() is not None and not logins  # nobody vouches for its certificate
        mailer = Mailer(store, safe.settings(**secure), store.users, clock)
        again = mailer.look()
        assert again is not None and {each[1] for each in logins} == {b"wrong-word"} and store.count_notes()
        file.write_text("grid\nright-word\n")  # somebody mends it; no restart is needed
        clock.now = again
        assert mailer.look() is None and len(safe.letters) == 1
        assert logins[-1] == (b"grid", b"right-word")
    finally:
        plain.stop()
        safe.stop()
    said = [each.getMessage() for each in caplog.records if each.name.startswith("grid")]  # the server logs, too
    assert any("535" in line for line in said) and not any("-word" in line for line in said)
    assert "-word" not in repr(mailer._settings)


@pytest.mark.row("J13")
def test_what_waits_to_be_told_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Managed(tmp_path / "s", Settings(mail_notes=3, tick_s=0.05)) as managed:
        managed.service.set_email("mara@x.org")
        for value in range(5):
            Square.submit(value=value).wait(LIMIT_S)
    with Managed(tmp_path / "s", Settings(mail_notes=3, tick_s=0.05)) as managed:
        Square.submit(value=6).wait(LIMIT_S)
        assert managed.store.count_notes() == 3
    assert [job for job in ("job-3", "job-4", "job-5", "job-6") if f"of {job} nobody" in caplog.text] == [
        "job-4",
        "job-5",
        "job-6",
    ]


@pytest.mark.row("J12")
def test_a_mail_server_that_says_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = Settings(mail_host="127.0.0.1", mail_port=mute.getsockname()[1], tick_s=0.05)
        with Managed(tmp_path / "s", settings) as managed:
            Square.submit(value=7, notify="boss@x.org", mails="immediate").wait(LIMIT_S)
            line, _ = mute.accept()  # the mailer waits for a greeting
            begin = time.monotonic()
        took = time.monotonic() - begin
        line.close()
    assert took < 30 and not any(thread.name == "jobs-mail" for thread in threading.enumerate())
    store = Store(tmp_path / "s")
    assert store.count_notes()  # for the next manager
    store.close()
    assert managed.manager.stopped


@pytest.mark.row("J12", "D04")
def test_grid_serve_takes_the_mail_server_from_options_and_the_environment(inbox: Inbox, tmp_path: Path) -> None:
    from grid.jobs import remote_service

    command = [sys.executable, "-m", "grid", "serve", "tests.edges.jobs_services", "--local", "1", "--name", "post"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRID_MAIL_FROM": "jobs@lab.example"}
    serving = subprocess.Popen(
        [*command, "--store", str(tmp_path / "s"), "--json", "--smtp", f"127.0.0.1:{inbox.port}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert serving.stdout is not None and json.loads(serving.stdout.readline())["name"] == "post"
        words = ["mails", "mara@x.org", "--when", "immediate", "--server", "post", "--user", "mara"]
        done = subprocess.run(
            [*command[:3], *words], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=LIMIT_S
        )
        assert done.returncode == 0 and "of mara go to mara@x.org, immediate" in done.stderr, done.stderr
        with remote_service("post", user="mara") as service:
            Square.submit(value=3).wait(LIMIT_S)
        until(lambda: inbox.letters)
        service.close()
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.communicate(timeout=LIMIT_S)
    assert inbox.letters[0][1]["From"] == "jobs@lab.example" and serving.returncode == 0
    login = tmp_path / "login"
    login.write_text("a\nb\n")
    login.chmod(0o600)
    for wrong, why in (
        (["--smtp", "host:0"], "no mail server"),
        (["--smtp-login", str(tmp_path / "absent")], "can't be read"),
        (["--smtp", "mail.example", "--smtp-login", str(login)], "in clear"),
        (["--mail-hour", "24"], "24"),
        (["--mail-from", "nobody"], "no e-mail address"),
    ):
        done = subprocess.run(
            [*command, *wrong], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=LIMIT_S
        )
        assert done.returncode in (1, 2) and why in done.stderr, done.stderr
