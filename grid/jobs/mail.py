"""Mails about jobs that have ended.

Lives here: the text, sending in a thread of its own.
Elsewhere:  who gets one (`manager.py`).
"""

from __future__ import annotations

import logging
import queue
import smtplib
import threading
from email.message import EmailMessage

from grid.jobs.host.plain import dumps
from grid.jobs.record import Record, iso
from grid.jobs.settings import Settings

logger = logging.getLogger(__name__)

ATTEMPTS = 3
SEND_S = 20.0


def letter(record: Record, address: str, sender: str) -> EmailMessage:
    """The mail about one job: name, state, result in short, times."""
    message = EmailMessage()
    names = [tag.removeprefix("name=") for tag in record.tags if tag.startswith("name=")]
    message["Subject"] = f"[grid] {names[0] if names else record.id}: {record.state}"
    message["From"], message["To"] = sender, address
    result = dumps(record.result) if record.result is not None else "none"
    lines = [
        f"job      {record.id}",
        f"service  {record.service} {record.version}",
        f"state    {record.state}",
        f"reason   {record.error or record.reason or 'none'}",
        f"result   {result if len(result) <= 2000 else result[:2000] + ' ...'}",
        f"created  {iso(record.created)}",
        f"started  {iso(record.started) if record.started else 'never'}",
        f"ended    {iso(record.ended) if record.ended else 'not yet'}",
        f"tags     {', '.join(record.tags)}",
    ]
    message.set_content("\n".join(lines) + "\n")
    return message


class Mailer:
    """Sends letters, one after the other; a server that is down costs a warning in the log."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._letters: queue.SimpleQueue[EmailMessage | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def send(self, record: Record, address: str) -> None:
        """Returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="jobs-mail", daemon=True)
            self._thread.start()
        self._letters.put(letter(record, address, self._settings.mail_from))

    def stop(self) -> None:
        """Send what waits, and end."""
        self._stopping.set()
        if self._thread is not None:
            self._letters.put(None)
            self._thread.join(SEND_S)

    def _run(self) -> None:
        while (message := self._letters.get()) is not None:
            for attempt in range(ATTEMPTS):
                try:
                    host, port = self._settings.mail_host, self._settings.mail_port
                    with smtplib.SMTP(host, port, timeout=SEND_S) as server:
                        server.send_message(message)
                    break
                except (OSError, smtplib.SMTPException) as exc:
                    logger.warning("a mail to %s was not sent (%s), attempt %d", message["To"], exc, attempt + 1)
                    if self._stopping.wait(2.0**attempt):
                        break
