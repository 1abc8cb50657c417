"""The job server on the network: HTTP with JSON, streams of server-sent events, tokens.

    grid serve fits.py --http 127.0.0.1:8080          the server; `python -m pip install 'sshgrid[web]'`
    remote_service("https://lab.example.org:8443")    the client: the same handles as for a server in this process

Lives here: `who.py` and `tokens.py` (who may do what), `caller.py` (what one caller sees of a job server), `events.py`
            (streams), `routes.py` and `app.py` (HTTP), `server.py` (sockets, TLS); for clients `client.py`, `login.py`.
Elsewhere:  jobs themselves (`grid/jobs`), the commands (`grid/cli/serve.py`, `grid/cli/web.py`).

Nothing of this is imported by `import grid`: FastAPI, uvicorn and httpx are needed by those alone who use the network.
"""
