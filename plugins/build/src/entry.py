"""The module that becomes the component: the policy, with what it prints and raises made visible.

What is printed becomes log lines. An exception becomes log lines that say where it was raised, and a failure with its message. So does a
result of the wrong type.
"""

import io
import sys

import carillon_policy_module as policy
from carillon_returned import RETURNED, WrongType
from componentize_py_types import Err
from wit_world.imports import log

try:
    from wit_world.imports.types import Blame, Failure
except ImportError:
    # No role of this component can fail.
    Failure = None

FUNCTIONS = {
    "Meta": ("describe", "check"),
    "Encode": ("encode",),
    "Sign": ("sign",),
    "Judge": ("judge",),
    "Retry": ("next",),
    "Observe": ("observe",),
}

# A call keeps 16 lines: this many of the innermost calls, and the message.
FRAMES = 8


class Lines(io.TextIOBase):
    """A standard stream as log lines, each written when it is whole."""

    def __init__(self, level):
        self.level = level
        self.rest = ""

    def writable(self):
        return True

    def write(self, text):
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            log.write(self.level, line)
        return len(text)

    def finish(self):
        if self.rest:
            log.write(self.level, self.rest)
            self.rest = ""


STDOUT = Lines(log.Level.INFO)
STDERR = Lines(log.Level.ERROR)


def told(error):
    """Writes down where an exception was raised, innermost call last, and returns its message."""
    # By hand: `traceback` looks for the sources, and there is no file system.
    places, step = [], error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        places.append(f"{code.co_filename}:{step.tb_lineno}, in {code.co_name}")
        step = step.tb_next
    for place in places[-FRAMES:]:
        STDERR.write(place + "\n")
    message = f"{type(error).__name__}: {error}"
    STDERR.write(message + "\n")
    return message


def guarded(function, method):
    def call(self, *arguments):
        sys.stdout, sys.stderr = STDOUT, STDERR
        try:
            result = method(self, *arguments)
            if function in RETURNED:
                RETURNED[function](result)
            return result
        except Err:
            raise
        except WrongType as error:
            STDERR.write(f"{error}\n")
            if function == "describe":
                # It has no failure to return.
                raise
            raise Err(Failure(Blame.POLICY, "wrong-type", f"{function}: {error}")) from None
        except BaseException as error:
            message = told(error)
            if function == "describe":
                raise
            if function == "observe":
                return None
            raise Err(message if function == "check" else Failure(Blame.POLICY, "exception", message)) from None
        finally:
            STDOUT.finish()
            STDERR.finish()

    return call


for role, functions in FUNCTIONS.items():
    played = getattr(policy, role, None)
    if played is not None:
        methods = {function: guarded(function, getattr(played, function)) for function in functions}
        globals()[role] = type(role, (played,), methods)
