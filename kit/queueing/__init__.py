"""Runs one after another, or one on each GPU: a queue in a folder, which outlives every process.

<queue>/queue.json               the entries in their order, whole or as they were before
<queue>/runs/<number>/           what belongs to one of them:
    settings.toml                    its settings, as they were when it was added
    log.txt                          what its process printed
    at_work.json                     held as long as that process or its starter lives
    run_dir.txt                      where the run's own folder is, once it has one
    ended.json                       its exit code

Every run is an ordinary one, `kit train settings.toml` in a process of its own: it goes on when the
queue's own process is killed, and its state is read from these files, not from a memory of it.
"""
