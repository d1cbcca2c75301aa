"""The verbs of the client for asyncio, one module per noun; ``carillon._calls`` makes their requests."""
