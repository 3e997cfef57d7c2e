"""The viewer in the browser: a server for one person on one machine, and the page that it serves."""
