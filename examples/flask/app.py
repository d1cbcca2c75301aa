"""Contracts that expire some time after they were made, if somebody has signed them by then: the application of Doppler's README, complete.

A contract's expiry is scheduled when it is made. While nobody has signed it, the callback answers 400, and comes again, five times.
"""

import os
from dataclasses import asdict, dataclass

from flask import Flask, abort
from flask.typing import ResponseReturnValue

from carillon.flask import Doppler

PORT = int(os.environ.get("PORT", "5001"))

#: How many seconds a contract lives, and how many pass between two tries.
LIFETIME = float(os.environ.get("LIFETIME", "10"))
RETRY_DELAY = int(os.environ.get("RETRY_DELAY", "10"))

app = Flask(__name__)
app.config.update(
    SERVER_NAME=f"localhost:{PORT}",
    # Who has it can call the callbacks: for anything but a try, give a secret of your own.
    SECRET_KEY=os.environ.get("SECRET_KEY", "foo"),
)
doppler = Doppler(os.environ.get("DOPPLER_URL", "http://localhost:7070/compat/doppler"))


class NotSignedError(Exception):
    """Nobody has signed the contract yet."""


@dataclass
class Contract:
    signed: bool = False
    expired: bool = False
    tries: int = 0

    def expire(self) -> None:
        self.tries += 1
        if not self.signed:
            raise NotSignedError
        self.expired = True


#: An application for more than a try has a database.
contracts: dict[str, Contract] = {}


@doppler.listen("/expire", max_retries=5, retry_delay=RETRY_DELAY)
def expire(id: str) -> None:
    try:
        contracts[id].expire()
    except NotSignedError:
        abort(400)  # Will retry 5x


doppler.register(app)


@app.post("/contracts/<id>")
def make(id: str) -> ResponseReturnValue:
    contracts[id] = Contract()
    job = expire.delay(LIFETIME, id=id)
    return {"job": job.request_id, "state": job.state}, 201


@app.get("/contracts/<id>")
def show(id: str) -> ResponseReturnValue:
    if id not in contracts:
        abort(404)
    return asdict(contracts[id])


@app.post("/contracts/<id>/sign")
def sign(id: str) -> ResponseReturnValue:
    if id not in contracts:
        abort(404)
    contracts[id].signed = True
    return asdict(contracts[id])


@app.get("/jobs/<id>")
def look(id: str) -> ResponseReturnValue:
    job = doppler.get_job(id) or abort(404)
    return {"state": job.state, "run_at": job.run_at, "last_retry": job.last_retry, "retries_left": job.retries_left}


@app.delete("/jobs/<id>")
def cancel(id: str) -> ResponseReturnValue:
    job = doppler.get_job(id) or abort(404)
    return {"was_cancelled": job.cancel()}


if __name__ == "__main__":
    app.run(port=PORT)
