"""Exit codes of the commands in launch/, which a scheduler can act on."""

DONE = 0
MISTAKE = 1  # the user's: the one line on stderr says what to mend
DIVERGED = 3  # the run is finished, but its loss grew
TRY_AGAIN = 75  # a peer or the coordinator was lost (sysexits.h calls it EX_TEMPFAIL); the same command goes on
STOPPED_BY_CTRL_C = 130  # 128 + SIGINT, as a shell counts
STOPPED_BY_SIGTERM = 143  # 128 + SIGTERM
