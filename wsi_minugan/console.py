"""How every command line of this project ends: with a sentence for a user's mistake, and with an exit status."""

from __future__ import annotations

import sys

import click

from wsi_minugan.errors import MinuganError

INTERRUPTED = 130
WRONG_USE = 2


def run_app(app: click.Command) -> None:
    """Run a command line; a mistake ends in a sentence, not in a traceback.

    Parameters
    ----------
    app : click.Command
        The command, or the group of commands.

    Raises
    ------
    SystemExit
        With the error's exit status, with 2 where the arguments do not fit, with 130 where the user interrupts.
    """
    try:
        app.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except click.ClickException as e:
        e.show()
        sys.exit(WRONG_USE)
    except MinuganError as e:
        click.echo(f"Error: {e}", err=True)
        sys.exit(e.exit_status)
