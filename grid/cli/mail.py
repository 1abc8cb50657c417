"""Options of `grid serve` about mails.

Lives here: `mail_options`, which makes the mail's part of `grid.jobs.settings.Settings` of them.
Elsewhere:  what the mailer does with it (`grid/jobs/mails/mailer.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from grid.errors import GridError

PORTS = {"none": 25, "starttls": 587, "tls": 465}


def mail_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options, and gives what they say as the argument `mail`."""

    @click.option("--smtp", metavar="HOST[:PORT]", envvar="GRID_SMTP", help="Mail server; default: localhost.")
    @click.option("--smtp-tls", type=click.Choice(list(PORTS)), envvar="GRID_SMTP_TLS", help="Default: none.")
    @click.option("--smtp-ca", metavar="FILE", envvar="GRID_SMTP_CA", help="Certificates to trust for it.")
    @click.option("--smtp-login", metavar="FILE", envvar="GRID_SMTP_LOGIN", help="0600, two lines: user, password.")
    @click.option("--mail-from", metavar="ADDRESS", envvar="GRID_MAIL_FROM", help="Default: grid@localhost.")
    @click.option("--mail-hour", type=click.IntRange(0, 23), default=7, envvar="GRID_MAIL_HOUR", help="Of daily mails.")
    @functools.wraps(command)
    def with_mail(
        *arguments: Any,
        smtp: str | None,
        smtp_tls: str | None,
        smtp_ca: str | None,
        smtp_login: str | None,
        mail_from: str | None,
        mail_hour: int,
        **others: Any,
    ) -> Any:
        mail = _settings(smtp, smtp_tls or "none", smtp_ca, smtp_login, mail_from, mail_hour)
        return command(*arguments, mail=mail, **others)

    return with_mail


def _settings(
    smtp: str | None, tls: str, ca: str | None, login: str | None, sender: str | None, hour: int
) -> dict[str, Any]:
    host, port = _address(smtp or "localhost", PORTS[tls])
    found: dict[str, Any] = {"mail_host": host, "mail_port": port, "mail_tls": tls, "mail_hour": hour}
    if sender:
        from grid.jobs.manager.admission import check_email

        found["mail_from"] = check_email(sender)
    if ca:
        found["mail_ca"] = ca
    if login:
        from grid.jobs.mails.mailer import read_login
        from grid.jobs.settings import Settings

        try:
            read_login(login)  # now, and not when the first mail is due
            Settings(**found, mail_login=login)
        except (GridError, ValueError) as exc:
            raise click.UsageError(str(exc)) from exc
        found["mail_login"] = login
    return found


def _address(text: str, port: int) -> tuple[str, int]:
    """`host`, `host:25`, `[::1]:25`, `::1`."""
    host, found = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        found = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, found = text.partition(":")
    if not host or (found and not (found.isdecimal() and 0 < int(found) < 65536)):
        raise click.UsageError(f"{text!r} is no mail server: give HOST or HOST:PORT")
    return host, int(found) if found else port
