"""Measuring inference engines against each other, fairly.

Each engine lives in its own process (`worker`), pinned to as many cores as it has threads. The
parent (`client`) talks to the processes in turn, so that rounds of the engines alternate and a
change of clock or of neighbours hits all of them alike.
"""
