"""The versions of the groups' policies. docs/concepts/rollout.md has the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Optional

from carillon._async.sender import AsyncVerbs
from carillon._calls import policies as calls
from carillon.models import Backtest, ChangedGroup, Group, Move, Proposed, Replay, Shadow, Version
from carillon.types import PolicyBase, PolicyFields

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncPolicies(AsyncVerbs):
    """The versions of the groups' policies."""

    def versions(self, group: str, *, page_size: Optional[int] = None) -> AsyncIterator[Version]:
        """Iterates over the versions of the group's policy, newest first."""
        return self._sender.send_all(calls.versions(group, page_size=page_size))

    async def version(self, group: str, number: int) -> Version:
        """Returns a version."""
        return await self._sender.send(calls.version(group, number))

    async def propose(self, group: str, *, base: Optional[PolicyBase] = None, **fields: Unpack[PolicyFields]) -> Proposed:
        """Creates a version without putting it in force; ``removed`` of the result lists the roles that it would end.

        It is checked as ``groups.put`` checks a policy. With ``base="active"``, omitted fields are those of the version in force.
        """
        return await self._sender.send(calls.propose(group, base=base, **fields))

    async def promote(
        self,
        group: str,
        number: int,
        *,
        percent: int = 100,
        max_faults: Optional[float] = None,
        max_differences: Optional[float] = None,
        min_attempts: Optional[int] = None,
        why: Optional[str] = None,
    ) -> ChangedGroup:
        """Puts a version in force, or makes it the canary for ``percent`` of the jobs.

        A canary is rolled back automatically when it exceeds ``max_faults`` or ``max_differences`` after ``min_attempts`` attempts.
        """
        call = calls.promote(
            group,
            number,
            percent=percent,
            max_faults=max_faults,
            max_differences=max_differences,
            min_attempts=min_attempts,
            why=why,
        )
        return await self._sender.send(call)

    async def rollback(self, group: str, *, version: Optional[int] = None, why: Optional[str] = None) -> ChangedGroup:
        """Ends the canary if there is one; otherwise puts the previous version in force again.

        Raises Problem (409) if ``version`` is given and is not the version that would be rolled back.
        """
        return await self._sender.send(calls.rollback(group, version=version, why=why))

    async def unquarantine(self, group: str, *, why: Optional[str] = None) -> Group:
        """Ends the quarantine of the group's policies on all nodes: they are called again."""
        return await self._sender.send(calls.unquarantine(group, why=why))

    def history(self, group: str, *, page_size: Optional[int] = None) -> AsyncIterator[Move]:
        """Iterates over the changes of the version in force, newest first, with author and reason."""
        return self._sender.send_all(calls.history(group, page_size=page_size))

    async def set_shadow(self, group: str, number: int, *, percent: int = 100) -> Shadow:
        """Runs a version in shadow on ``percent`` of the attempts: its results are compared and never used."""
        return await self._sender.send(calls.set_shadow(group, number, percent=percent))

    async def shadow(self, group: str) -> Shadow:
        """Returns the comparison of the group's shadow so far, as the answering node counts it.

        Raises Problem (404) if the group has no shadow.
        """
        return await self._sender.send(calls.shadow(group))

    async def delete_shadow(self, group: str) -> None:
        """Ends the group's shadow."""
        return await self._sender.send(calls.delete_shadow(group))

    async def replay(self, job_id: str, attempt: int, *, version: Optional[int] = None) -> Replay:
        """Decides a recorded attempt again, with the version that decided it or with ``version``."""
        return await self._sender.send(calls.replay(job_id, attempt, version=version))

    async def backtest(
        self,
        group: str,
        number: int,
        *,
        created_from: Optional[datetime] = None,
        created_before: Optional[datetime] = None,
        attempted_from: Optional[datetime] = None,
        attempted_before: Optional[datetime] = None,
        cursor: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> Backtest:
        """Decides the recorded attempts of up to 100 jobs again with a version; ``next_cursor`` continues with further jobs.

        ``created_…`` selects jobs by when they were accepted, ``attempted_…`` attempts by when they began.
        """
        call = calls.backtest(
            group,
            number,
            created_from=created_from,
            created_before=created_before,
            attempted_from=attempted_from,
            attempted_before=attempted_before,
            cursor=cursor,
            limit=limit,
        )
        return await self._sender.send(call)
