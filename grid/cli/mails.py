"""`grid mails`: where mails about your jobs go, and when.

Lives here: the command.
Elsewhere:  the mail server (`cli/mail.py`), what is sent when (`grid/jobs/rules/post.py`).
"""

from __future__ import annotations

import click

from grid.cli import exits
from grid.cli.choose import json_option
from grid.cli.jobs import _connected, _server_options
from grid.cli.show import print_json, say


@click.command(epilog=exits.EPILOG, short_help="Say where mails about your jobs go.")
@click.argument("address")
@click.option(
    "--when", type=click.Choice(["immediate", "hourly", "daily", "off"]), help="How often; default: as before."
)
@json_option
@_server_options
def mails(address: str, when: str | None, as_json: bool, server: str, user: str | None) -> None:
    """Have mails about your jobs sent to ADDRESS, once a day unless you say otherwise. `none` ends it.

    \b
    Examples:
      grid mails mara@example.org
      grid mails mara@example.org --when immediate
      grid mails none
    """
    wanted = None if address == "none" else address
    with _connected(server, user) as service:
        service.set_email(wanted, when)
        who = service.user
    if as_json:
        print_json({"user": who, "email": wanted, "mails": when})
    else:
        say(f"mails about jobs of {who} go {f'to {wanted}' if wanted else 'nowhere'}{f', {when}' if when else ''}")
