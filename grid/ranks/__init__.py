"""Ranks without MPI: programs whose processes talk with each other, on the servers of a grid.

    client: Ranks ── publishes ──> RankProcess: main(comm) on servers; RankDesk: on hosts, hears the client meanwhile
                                        │ Comm ─> Post ─> Mailbox (pure), RankLane (sockets)
                                        └── messages go straight from server to server, or by the client

Lives here: nothing but this map; `Comm` and the words of MPI are in `grid.ranks.words`.
Elsewhere:  `comm` (what programs call), `collectives`, `arrays` (how), `post` (one rank's letters), `mailbox` (which
            letter is for which receive), `lane` (sockets), `rank` and `desk` (what is published), `launch`
            (the client's side), `scripts` and `shim` (`grid run --ranks`).
"""
