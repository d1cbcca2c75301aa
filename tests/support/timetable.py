"""Computes when crontab expressions run, from Python's zoneinfo and the calendar alone.

The rule is stated differently from the way in which the server works: local clocks are watched as time passes. With a star in the hour or
the minute, everything that matches runs whenever a clock shows it. Otherwise, whenever a local clock shows a time that it has never
shown before, everything that matches and lies between its latest time so far and the new one runs, once. So a jump forward runs what it
skips, and going back runs nothing again.

Reads {"year", "zones": [...], "expressions": [...]} and prints, for each zone and each expression, Unix seconds in order.
"""

import bisect
import calendar
import json
import sys
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1)
DAY, HOUR, MINUTE = 86_400, 3_600, 60


def numbers(field, least, most):
    """The numbers of a field: stars, numbers, ranges that may go on from the beginning, steps and lists, no names."""
    found = set()
    for item in field.split(","):
        if item[-1] in "LW" or "#" in item or item[0] == "L":
            continue
        base, _, step = item.partition("/")
        first, _, last = base.partition("-")
        if base == "*":
            chosen = list(range(least, most + 1))
        elif int(last or first) < int(first):
            chosen = list(range(int(first), most + 1)) + list(range(least, int(last) + 1))
        else:
            chosen = list(range(int(first), int(last or first) + 1))
        found.update(chosen[:: int(step or 1)])
    return found


def nearest_workday(at):
    """The Monday to Friday of the same month that is nearest to a day."""
    days = [at + timedelta(days=shift) for shift in (0, -1, 1, -2, 2)]
    return next(day for day in days if day.month == at.month and day.weekday() < 5)


def is_word_of_month(field, at):
    """Whether one of `L`, `L-3`, `LW` and `15W` in the field for the day of the month is this day."""
    last = calendar.monthrange(at.year, at.month)[1]
    for item in field.split(","):
        word = item.rstrip("W")
        if item[0] == "L":
            day = last - int(word[2:] or 0)
        elif item[-1] == "W":
            day = int(word)
        else:
            continue
        if not 1 <= day <= last:
            continue
        meant = date(at.year, at.month, day)
        if at == (nearest_workday(meant) if item[-1] == "W" else meant):
            return True
    return False


def is_word_of_week(field, at):
    """Whether one of `5L` and `5#2` in the field for the day of the week is this day."""
    for item in field.split(","):
        if item[-1] == "L":
            in_week = (at + timedelta(days=7)).month != at.month
        elif "#" in item:
            in_week = (at - timedelta(days=7 * int(item[2]))).month != at.month
            in_week = in_week and (int(item[2]) == 1 or (at - timedelta(days=7 * (int(item[2]) - 1))).month == at.month)
        else:
            continue
        if in_week and at.isoweekday() % 7 == int(item[0]) % 7:
            return True
    return False


def matching(expression, year):
    """All local times of the year and of its neighbours' edges that match, as seconds since 1970 on a clock without a zone."""
    fields = expression.split()
    if len(fields) == 5:
        fields.insert(0, "0")
    bounds = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
    second, minute, hour, day, month, week = (numbers(text, *bound) for text, bound in zip(fields, bounds))
    either = fields[3] != "*" and fields[5] != "*"
    of_a_day = sorted(h * HOUR + m * MINUTE + s for h in hour for m in minute for s in second)
    at = date(year, 1, 1) - timedelta(days=3)
    found = []
    while at < date(year + 1, 1, 4):
        in_month = at.day in day or is_word_of_month(fields[3], at)
        in_week = at.isoweekday() % 7 in {n % 7 for n in week} or is_word_of_week(fields[5], at)
        if at.month in month and (in_month or in_week if either else in_month and in_week):
            midnight = (at - date(1970, 1, 1)).days * DAY
            found.extend(midnight + seconds for seconds in of_a_day)
        at += timedelta(days=1)
    return found


def offset(zone, at):
    """What the zone's clocks are ahead of UTC by at a Unix time, in seconds."""
    return int(datetime.fromtimestamp(at, timezone.utc).astimezone(zone).utcoffset().total_seconds())


def stretches(zone, begin, end):
    """The times from begin to end in stretches of one offset each: (from, to, offset). A change falls on a whole minute."""
    start, ahead = begin, offset(zone, begin)
    for hour in range(begin, end, HOUR):
        if offset(zone, min(hour + HOUR, end)) == offset(zone, hour):
            continue
        for at in range(hour, hour + HOUR, MINUTE):
            if offset(zone, at + MINUTE) != ahead:
                yield start, at + MINUTE, ahead
                start, ahead = at + MINUTE, offset(zone, at + MINUTE)
    yield start, end, ahead


def follows_elapsed_time(expression):
    """Whether the hour or the minute is a star, perhaps with a step."""
    fields = expression.split()
    hour, minute = fields[-4], fields[-5]
    return any(field[0] == "*" and "," not in field for field in (hour, minute))


def runs(zone, year, local, elapsed):
    """The Unix times within the UTC year at which something runs."""
    begin, end = (int((datetime(y, 1, 1) - EPOCH).total_seconds()) for y in (year, year + 1))
    if elapsed:
        found = []
        for start, stop, ahead in stretches(zone, begin, end):
            shown = slice(bisect.bisect_left(local, start + ahead), bisect.bisect_left(local, stop + ahead))
            found.extend(at - ahead for at in local[shown])
        return found
    latest = begin + offset(zone, begin) - 1
    found = []
    for start, stop, ahead in stretches(zone, begin, end):
        shown = start + ahead
        if bisect.bisect_right(local, latest) < bisect.bisect_right(local, shown):
            found.append(start)
        low, high = bisect.bisect_right(local, max(latest, shown)), bisect.bisect_left(local, stop + ahead)
        found.extend(at - ahead for at in local[low:high])
        latest = max(latest, stop + ahead - 1)
    return found


def main():
    asked = json.load(sys.stdin)
    year = asked["year"]
    local = [(matching(expression, year), follows_elapsed_time(expression)) for expression in asked["expressions"]]
    answer = [[runs(ZoneInfo(name), year, times, elapsed) for times, elapsed in local] for name in asked["zones"]]
    json.dump(answer, sys.stdout)


main()
