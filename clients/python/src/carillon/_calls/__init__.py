"""Requests as data: pure functions that say what to send and how to read the response. The clients only send them.

``carillon._async`` has a method for each of these functions, with the same parameters and the documentation.

A function of this package raises TypeError or ValueError for arguments that no server would accept, before anything is sent; everything
else is for the server to judge.
"""
