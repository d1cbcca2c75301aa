"""Requests as data: pure functions that say what to send and how to read the answer. The clients only send them.

A function of this package raises TypeError or ValueError for arguments that cannot be meant, before anything is sent; everything else
is for the server to judge.
"""
