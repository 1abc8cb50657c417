"""Sends mails about jobs that have ended.

    the job's end and its Note, in one transaction --> due? --> Letter, stored --> SMTP --> Notes deleted

A note is stored together with the end that it tells of, so no kill of the manager loses it. A letter's id is stored
before it is sent, and its notes are deleted after the mail server has taken it. A kill in between makes the next
manager send the *same* letter again, with the same Message-ID, which mail systems may know as a repetition. So a mail
is sent once, and after a crash at that very moment twice; never not at all.

A mail server that is down is tried again after 30 s, then twice as long each time up to an hour; after `mail_give_up_s`
(5 days) a letter is given up with an error in the log. What the server refuses for good is not tried again.

Thread: `jobs-mail`, from the first note on. Time is what the clock says that was handed in.

Lives here: `Mailer`.
Elsewhere:  what is due when (`rules/post.py`), what letters say (`letters.py`), notes on disk (`store/`), who makes
            notes (`manager/running.py`).
"""

from __future__ import annotations

import logging
import os
import secrets
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid.jobs.host.errors import JobError, StoreError
from grid.jobs.mails.letters import compose, facts
from grid.jobs.record import JobRecord
from grid.jobs.rules.post import Letter, Note, due, pause_s, plan, wish
from grid.jobs.settings import Settings
from grid.text import in_words

if TYPE_CHECKING:
    from grid.jobs.store.store import Store

logger = logging.getLogger(__name__)

SEND_S = 20.0
"""Longest single step of a conversation with a mail server."""
STOP_S = 5.0
"""At the end, for letters that are due."""
GATHER_S = 0.2
"""Jobs that end within this time are handled together."""
LOOK_S = 60.0
"""Longest time between looks at the clock, which may be set, or stand still with the machine."""

Users = Callable[[], Mapping[str, Mapping[str, Any]]]


class Mailer:
    """See the module. `users` gives name -> `email`, `mails`."""

    def __init__(self, store: Store, settings: Settings, users: Users, clock: Callable[[], float] = time.time) -> None:
        self._store, self._settings, self._users, self._clock = store, settings, users, clock
        self._looking = threading.Lock()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._next = float("inf")
        self._waiting = 0  # notes in the store
        self._failed: dict[str, tuple[int, float]] = {}  # letter ("": the server) -> failures, when to try again
        self._line: smtplib.SMTP | None = None

    # -- from the manager ------------------------------------------------------------------------------------------

    def note(self, record: JobRecord) -> Note | None:
        """What to store together with a job's end; None if nobody wants to know."""
        found = Note(job=record.id, owner=record.owner, address=record.notify, mails=record.mails, noted=self._clock())
        if not wish(found, self._users())[0]:
            return None
        if self._waiting >= self._settings.mail_notes:
            logger.error("%d ends of jobs wait to be mailed: of %s nobody is told", self._waiting, record.id)
            return None
        return replace(found, facts=facts(record))

    def noted(self, note: Note) -> None:
        """It is stored. Returns at once."""
        with self._lock:
            self._waiting += 1
        mails = wish(note, self._users())[1]
        self._look_at(due(note.noted, mails, self._settings.mail_hour))

    def nudge(self) -> None:
        """Look now: an earlier manager has left notes, or users' wishes have changed."""
        with self._lock:
            self._waiting = self._store.count_notes()
        if self._waiting:
            self._look_at(float("-inf"))

    def stop(self) -> None:
        """Send what is due, unless that takes long: it is in the store. Harmless if done already."""
        with self._lock:
            self._stopping = True
            thread = self._thread
        self._wake.set()
        if thread is not None:
            thread.join(STOP_S)
            if thread.is_alive():
                self._hang_up()
                thread.join(STOP_S)

    def _look_at(self, when: float) -> None:
        with self._lock:
            if self._stopping and self._thread is None:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobs-mail", daemon=True)
                self._thread.start()
            if when < self._next:
                self._next = when
                self._wake.set()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._lock:
                wait_s = min(LOOK_S, max(0.0, self._next - self._clock()))
                stopping = self._stopping
            if wait_s and not stopping:
                self._wake.wait(wait_s)
            with self._lock:
                stopping = self._stopping
                self._wake.clear()
                is_time = self._next <= self._clock()
                if is_time:
                    self._next = float("inf")
            if is_time:
                if not stopping:
                    self._wake.wait(GATHER_S)
                self._look_safely()
            if stopping:
                return

    def _look_safely(self) -> None:
        again: float | None
        try:
            again = self.look()
        except StoreError as exc:
            logger.warning("mails wait for the store: %s", exc)
            again = self._clock() + LOOK_S
        except Exception:
            logger.exception("the mailer stumbled, and goes on")
            again = self._clock() + LOOK_S
        if again is not None:
            with self._lock:
                self._next = min(self._next, again)

    def look(self) -> float | None:
        """Send what is due by the clock; returns when to look again, None if nothing waits."""
        with self._looking:
            now = self._clock()
            planned = plan(self._store.notes(), self._users(), now, hour=self._settings.mail_hour)
            if planned.dropped:
                self._store.drop_notes(planned.dropped)
            letters = [each if each.id else self._post(each, now) for each in planned.letters]
            there = {"", *(each.id for each in letters)}
            self._failed = {key: value for key, value in self._failed.items() if key in there}
            ready = [each for each in letters if max(self._again(""), self._again(each.id)) <= now]
            if ready:
                self._send_all(ready, now)
            left = {note.letter for note in self._store.notes() if note.letter} if letters else set()
            with self._lock:
                self._waiting = self._store.count_notes()
            times = [max(self._again(""), self._again(each.id)) for each in letters if each.id in left]
            if planned.next_due is not None:
                times.append(planned.next_due)
            return min(times, default=None)

    def _again(self, key: str) -> float:
        return self._failed.get(key, (0, 0.0))[1]

    def _post(self, letter: Letter, now: float) -> Letter:
        """Fix what is in a letter, on disk."""
        made = replace(letter, id=secrets.token_hex(12), posted=now)
        self._store.post_notes([note.number for note in letter.notes], made.id, now)
        return made

    def _send_all(self, letters: list[Letter], now: float) -> None:
        try:
            line = self._connect()
        except (OSError, smtplib.SMTPException, JobError) as exc:
            self._failure("", now, f"the mail server {self._where()} can't be used ({_brief(exc)})")
            for letter in letters:
                self._give_up_if_old(letter, now)
            return
        self._failed.pop("", None)
        try:
            for letter in letters:
                if not self._send(line, letter, now):
                    self._failure("", now, f"the mail server {self._where()} hung up")
                    return
        finally:
            self._line = None
            try:
                line.quit()
            except (OSError, smtplib.SMTPException):
                line.close()

    def _send(self, line: smtplib.SMTP, letter: Letter, now: float) -> bool:
        """One letter; False if the connection is of no more use."""
        try:
            line.send_message(compose(letter, self._settings.mail_from))
        except smtplib.SMTPServerDisconnected:
            self._give_up_if_old(letter, now)
            return False
        except smtplib.SMTPRecipientsRefused as exc:
            code, why = next(iter(exc.recipients.values()))
            self._refused(letter, now, code, _brief(smtplib.SMTPResponseException(code, why)))
        except smtplib.SMTPDataError as exc:
            self._refused(letter, now, exc.smtp_code, _brief(exc))
        except (smtplib.SMTPNotSupportedError, ValueError) as exc:  # an address that this server can't do
            self._refused(letter, now, 500, _brief(exc))
        except smtplib.SMTPException as exc:  # the sender, say: the server's owner can mend that
            self._refused(letter, now, 400, _brief(exc))
        except OSError as exc:
            logger.debug("the connection to the mail server broke: %s", exc)
            self._give_up_if_old(letter, now)
            return False
        else:
            self._store.drop_notes([note.number for note in letter.notes])
            self._failed.pop(letter.id, None)
            logger.info("mailed %d ends of jobs to %s", len(letter.notes), letter.address)
        return True

    def _refused(self, letter: Letter, now: float, code: int, why: str) -> None:
        if code >= 500:
            logger.error("a mail to %s about %s is refused for good: %s", letter.address, _jobs(letter), why)
            self._store.drop_notes([note.number for note in letter.notes])
        elif not self._give_up_if_old(letter, now):
            self._failure(letter.id, now, f"a mail to {letter.address} was not taken ({why})")

    def _give_up_if_old(self, letter: Letter, now: float) -> bool:
        if now - letter.posted < self._settings.mail_give_up_s:
            return False
        logger.error("a mail to %s about %s could not be sent and is given up", letter.address, _jobs(letter))
        self._store.drop_notes([note.number for note in letter.notes])
        return True

    def _failure(self, key: str, now: float, what: str) -> None:
        failures = self._failed.get(key, (0, 0.0))[0] + 1
        wait_s = pause_s(failures, self._settings.mail_retry_s)
        self._failed[key] = failures, now + wait_s
        logger.warning("%s; trying again in %.0f s", what, wait_s)

    # -- the mail server -------------------------------------------------------------------------------------------

    def _where(self) -> str:
        return f"{self._settings.mail_host}:{self._settings.mail_port}"

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        if settings.mail_tls == "tls":
            line: smtplib.SMTP = smtplib.SMTP_SSL(timeout=SEND_S, context=self._context())
        else:
            line = smtplib.SMTP(timeout=SEND_S)
        # Known before it waits for a greeting, so that `stop` can hang up. Its certificate is checked against `_host`,
        # which only the constructor sets, and that would wait.
        self._line = line
        vars(line)["_host"] = settings.mail_host
        try:
            line.connect(settings.mail_host, settings.mail_port)
            if settings.mail_tls == "starttls":
                line.starttls(context=self._context())
            if settings.mail_login:
                line.login(*read_login(settings.mail_login))
        except BaseException:
            line.close()
            raise
        return line

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._settings.mail_ca or None)

    def _hang_up(self) -> None:
        line = self._line
        sock = line.sock if line is not None else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was on its way


def read_login(path: str) -> tuple[str, str]:
    """User and password for a mail server: the two lines of a file that is its owner's alone.

    Raises:
        JobError: It can't be read, others can read it, or it has no two lines; nothing of its contents is told.
    """
    file = Path(path).expanduser()
    try:
        with open(file, encoding="utf-8") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            lines = opened.read(10_000).splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise JobError(f"the login file {file} can't be read ({type(exc).__name__})", hint="See --smtp-login") from None
    if mode & 0o077:
        raise JobError(f"others can read the login file {file}", hint=f"Run: chmod 600 {file}")
    if len(lines) < 2 or not lines[0] or not lines[1]:
        raise JobError(f"the login file {file} has no two lines", hint="Write the user, then the password")
    return lines[0], lines[1]


def _brief(exc: Exception) -> str:
    """The message of a failure, in one line."""
    if isinstance(exc, smtplib.SMTPResponseException):
        said = exc.smtp_error
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        return f"{exc.smtp_code} {' '.join(text.split())[:300]}"
    return f"{type(exc).__name__}: {' '.join(in_words(exc).split())[:300]}"


def _jobs(letter: Letter) -> str:
    names = [note.job for note in letter.notes]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
