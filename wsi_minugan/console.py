"""What all command lines share: a display that may go away, errors as sentences, and exit statuses."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Collection
from typing import Any, NoReturn, TextIO

import click

from wsi_minugan.errors import MinuganError


class SteadyStream:
    """A text stream that stops to show, and does not fail, when nobody can read it any more.

    A terminal that was closed, a full disk behind `>` or a reader like `head` that has read enough: what goes on does not
    depend on who looks on.

    Parameters
    ----------
    stream : TextIO
        The stream that is written to.

    Attributes
    ----------
    lost : OSError or None
        Why it shows nothing any more.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, with marks for characters that the stream does not know; or do nothing.

        Parameters
        ----------
        text : str
            What to write.

        Returns
        -------
        int
            Characters written; the text's length where nothing can be written any more.
        """
        if self.lost is None:
            try:
                return self._stream.write(text)
            except UnicodeEncodeError:
                known = self._stream.encoding or "ascii"
                return self.write(text.encode(known, "backslashreplace").decode(known))
            except (OSError, ValueError) as e:
                self._give_up(e)
        return len(text)

    def writelines(self, lines: Collection[str]) -> None:
        """Write lines; see `write`.

        Parameters
        ----------
        lines : collection of str
            What to write.
        """
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written; or do nothing."""
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as e:
                self._give_up(e)

    def _give_up(self, error: OSError | ValueError) -> None:
        # A closed stream raises ValueError.
        self.lost = error if isinstance(error, OSError) else OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            # What the stream still holds is written when Python ends, and must find somebody who takes it.
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            return


def steady_streams() -> None:
    """Have this process go on when its output cannot be written, and open what it was started without.

    A file that is opened while the number of standard error is free gets that number, and then every library's messages.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, SteadyStream):
            setattr(sys, name, SteadyStream(stream or open(os.devnull, "w", encoding="utf-8")))  # noqa: PTH123, SIM115


def outlive_terminal() -> None:
    """Go on when the terminal is closed, unless whoever started this process decided otherwise; its workers do the same."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def run_app(app: click.Command, batches: Collection[str] = ()) -> NoReturn:
    """Run a command line and end the process: a user's mistake ends in a sentence, not in a traceback.

    Parameters
    ----------
    app : click.Command
        The command line.
    batches : collection of str
        Its commands whose product lies in files: these go on without a display, and their exit status tells of the work alone.
    """
    command = next((a for a in sys.argv[1:] if not a.startswith("-")), "")
    if command in batches:
        outlive_terminal()
    status = _status_of(app)
    sys.stdout.flush()
    lost = getattr(sys.stdout, "lost", None)
    # Who closes a pipe has read enough; a product that did not reach a file is lost.
    if lost is not None and lost.errno != errno.EPIPE and command not in batches:
        click.echo(f"Error: The output cannot be written: {lost.strerror}. Check where it goes.", err=True)
        status = status or 1
    sys.exit(status)


def _status_of(app: click.Command) -> int:
    try:
        ended = app.main(standalone_mode=False)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as e:
        e.show()
        return 2
    except MinuganError as e:
        click.echo(f"Error: {e}", err=True)
        return e.exit_status
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    # Without a mode of its own click hands back the status of `ctx.exit`, and the value of a command that returns one.
    return ended if isinstance(ended, int) else 0
