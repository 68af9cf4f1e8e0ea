"""Which of a run's files to keep: a pure judgement of what was measured of each."""
