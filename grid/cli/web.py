"""`grid token`: tokens of a job server on this machine. `grid login`, `grid logout`: those that this user has.

Lives here: options, tables.
Elsewhere:  where they are kept (`grid/web/tokens.py`, `grid/web/login.py`), `grid serve` (`cli/serve.py`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from grid.cli import exits
from grid.cli.choose import json_option
from grid.cli.main import NearMisses
from grid.cli.show import print_json, print_table, say, span

if TYPE_CHECKING:
    from grid.web.tokens import Tokens

_store = click.option("--store", metavar="DIR", help="Where the server keeps its jobs; default: as of `grid serve`.")


def _tokens(store: str | None) -> Tokens:
    from grid.jobs.settings import data_directory
    from grid.web.tokens import Tokens
    from grid.wire.places import store_dir

    if store is not None and "://" in store:
        raise click.UsageError("tokens lie in a directory: that of the server's files, not the URL of its database")
    return Tokens(store_dir(Path(store) if store else data_directory()))


@click.group(cls=NearMisses, epilog=exits.EPILOG, short_help="Tokens of a job server: create, list, revoke.")
def token() -> None:
    """Tokens of the job server whose jobs lie on this machine (`grid serve --http`). Changes take effect at once.

    \b
    Examples:
      grid token create mara --days 30
      grid token create ci --scope read --scope submit
      grid token list
      grid token revoke 4kq0z81mda
    """


@token.command("create", epilog=exits.EPILOG, short_help="Make a token, and print it this once.")
@click.argument("user")
@click.option("--scope", "scopes", multiple=True, help="read, submit, control, upload or admin; default: the first 3.")
@click.option("--days", type=click.FloatRange(0, min_open=True), default=90.0, show_default=True, help="Lifetime.")
@click.option("--note", default="", help="What it is for; shown in the list.")
@_store
@json_option
def create(user: str, scopes: tuple[str, ...], days: float, note: str, store: str | None, as_json: bool) -> None:
    """Make a token for USER. Only its hash is kept: copy it now.

    \b
    Example:
      grid token create mara --scope read --scope submit --scope control --scope upload
    """
    from grid.web.who import USUAL

    made = _tokens(store).create(user, scopes or USUAL, days * 86400.0, note=note)
    print_json({"user": user, "token": made}) if as_json else click.echo(made)


@token.command("list", epilog=exits.EPILOG, short_help="Show tokens, without their secrets.")
@click.option("--user", metavar="USER", help="Only of this user.")
@_store
@json_option
def list_tokens(user: str | None, store: str | None, as_json: bool) -> None:
    """Show the tokens of this server: id, user, scopes, time left.

    \b
    Example:
      grid token list --json
    """
    found = _tokens(store).list(user)
    if as_json:
        print_json(found)
    elif found:
        rows = []
        for each in found:
            left = span(each["expires"] - time.time()) if each["valid"] else "over"
            only = ",".join([*(each["services"] or ()), *(each["jobs"] or ())])
            rows.append((each["id"], each["user"], ",".join(each["scopes"]), left, only, each["note"]))
        print_table(("token", "user", "scopes", "left", "only for", "note"), rows)
    else:
        say("no tokens")


@token.command(epilog=exits.EPILOG, short_help="End a token.")
@click.argument("id")
@_store
@json_option
def revoke(id: str, store: str | None, as_json: bool) -> None:
    """End the token of that id, at once, and with it those that were made of it. Open streams end within seconds.

    \b
    Example:
      grid token revoke 4kq0z81mda
    """
    _tokens(store).revoke(id)
    if as_json:
        print_json({"revoked": id})


@click.command(epilog=exits.EPILOG, short_help="Keep a token of a job server elsewhere.")
@click.argument("url")
@click.option("--name", help="A short name for it, to be used instead of the URL.")
@click.option("--fingerprint", help="Of a server's own certificate, as `grid serve --tls self` prints it.")
@click.option("--token-file", type=click.File("r"), help="Read the token from it; default: asked for. - is stdin.")
@json_option
def login(url: str, name: str | None, fingerprint: str | None, token_file: IO[str] | None, as_json: bool) -> None:
    """Check a token of the job server at URL, and keep it: in the keyring if there is one, else in a 0600 file.

    \b
    Examples:
      grid login https://lab.example.org:8440 --name lab
      grid login https://10.0.0.7:8440 --fingerprint 3b1f... --token-file token.txt
    """
    from grid.web import login as logins

    given = token_file.read() if token_file is not None else click.prompt("Token", hide_input=True, err=True)
    me, where = logins.login(url, str(given).strip(), name=name, fingerprint=fingerprint)
    if as_json:
        print_json({**me, "kept": where})
    else:
        say(f"you are {me['user']} at {url}, with {', '.join(me['scopes'])}; the token is kept in {where}")


@click.command(epilog=exits.EPILOG, short_help="Forget a token.")
@click.argument("url")
@json_option
def logout(url: str, as_json: bool) -> None:
    """Forget the token of the job server at URL, or of that name. At the server it holds until it is revoked.

    \b
    Example:
      grid logout lab
    """
    from grid.web import login as logins

    if not logins.logout(url):
        raise click.UsageError(f"there is no token of {url!r} here")
    if as_json:
        print_json({"forgotten": url})
