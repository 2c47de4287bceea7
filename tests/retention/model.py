#!/usr/bin/env python3
"""An independent model of the receiver's retention rules.

The model is written from the rules in words, and it serves as the oracle for
the program that really prunes.  It favours plainness over speed.  All times
are whole seconds since 1970 UTC.

    evaluate(request)   says what stays and what goes, in the same shape as
                        the answer of the retention-eval program.
    ordinary_time(...)  says when a copy would go if nobody disturbed it.

`python3 model.py --self-test` checks the model against slower versions of
itself that are written in another way.
"""

import functools
import random
import re
import sys
import time as clock
from collections import namedtuple
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

HOUR = 3600
DAY = 86400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

# A part of a rule is ("hours" | "days" | "weeks" | "months" | "years", N) for
# buckets, or ("all", N) for 'N days all'.
Part = namedtuple("Part", "kind count")

ALL = "all"
BUCKET_WORDS = {
    "hours": "hourly",
    "days": "daily",
    "weeks": "weekly",
    "months": "monthly",
    "years": "yearly",
}


class RuleError(ValueError):
    """The text of a rule cannot be understood."""


# --------------------------------------------------------------------------
# Rules


@functools.lru_cache(maxsize=4096)
def parse_rule(text):
    """Return ALL, or a tuple of parts.  Raise RuleError for anything else."""
    if text.strip() == "all":
        return ALL
    parts = []
    for piece in text.split(","):
        words = piece.split()
        if len(words) != 3:
            raise RuleError("a part needs a number, a unit and a word: %r" % piece)
        number, unit, word = words
        if not re.fullmatch("[0-9]+", number) or int(number) < 1:
            raise RuleError("a part starts with a whole number from 1: %r" % piece)
        if unit == "days" and word == "all":
            parts.append(Part("all", int(number)))
        elif BUCKET_WORDS.get(unit) == word:
            parts.append(Part(unit, int(number)))
        else:
            raise RuleError("there is no such part: %r" % piece)
    return tuple(parts)


# --------------------------------------------------------------------------
# The calendar
#
# A bucket is named by a whole number, its key, and the keys of neighbours
# differ by one.  The key of a calendar bucket comes from the local date only,
# so a local date that occurs twice (the clock is set back over midnight) is
# one bucket.


@functools.lru_cache(maxsize=1 << 19)
def calendar_keys(zone, t):
    """Return the keys (day, week, month, year) of instant t in the zone."""
    local = datetime.fromtimestamp(t, ZoneInfo(zone))
    ordinal = local.toordinal()
    # Day 1 of the ordinal count, 0001-01-01, is a Monday.
    return (ordinal, (ordinal - 1) // 7, local.year * 12 + local.month - 1, local.year)


def bucket_key(kind, zone, t):
    """Return the key of the bucket of this kind that holds instant t."""
    if kind == "hours":
        return t // HOUR  # Hours are hours of UTC, whatever the zone is.
    return calendar_keys(zone, t)[("days", "weeks", "months", "years").index(kind)]


def first_date(kind, key):
    """Return the first calendar date of a day, week, month or year."""
    if kind == "days":
        return date.fromordinal(key)
    if kind == "weeks":
        return date.fromordinal(key * 7 + 1)
    if kind == "months":
        return date(key // 12, key % 12 + 1, 1)
    return date(key, 1, 1)


def in_range(key, key_of_t, count):
    """Say whether a bucket is that of T or one of the count-1 before it."""
    return key_of_t - count < key <= key_of_t


def utc_offset(zone, t):
    """Return local time minus UTC, in seconds, at instant t."""
    delta = datetime.fromtimestamp(t, ZoneInfo(zone)).utcoffset()
    return delta.days * DAY + delta.seconds


def transition_between(zone, low, high):
    """Return the first instant with the offset of `high`, after `low`.

    The two ends differ in offset, and one change lies between them.
    """
    before = utc_offset(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        if utc_offset(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high


@functools.lru_cache(maxsize=1 << 16)
def offset_pieces(zone, midnight):
    """Return pieces (start, end, offset) of constant offset around a midnight.

    `midnight` is a local midnight that is read as if it were UTC.  An offset
    is always less than a day, so the pieces cover a day on both sides.
    """
    start, stop = midnight - DAY, midnight + DAY
    pieces = []
    piece_start, piece_offset = start, utc_offset(zone, start)
    for t in range(start + HOUR, stop + 1, HOUR):
        offset = utc_offset(zone, t)
        if offset != piece_offset:
            change = transition_between(zone, t - HOUR, t)
            pieces.append((piece_start, change, piece_offset))
            piece_start, piece_offset = change, offset
    pieces.append((piece_start, stop, piece_offset))
    return tuple(pieces)


def end_of_range(kind, zone, key, count, t):
    """Return the first instant after t at which the bucket is out of range.

    The bucket `key` is in range at t.  Return None if it stays in range to the
    end of the calendar.
    """
    if kind == "hours":
        return (key + count) * HOUR
    first = (first_date(kind, key).toordinal() - EPOCH_ORDINAL) * DAY
    try:
        last = (first_date(kind, key + count).toordinal() - EPOCH_ORDINAL) * DAY
        # The pieces below must not run over the end of the calendar.
        date.fromordinal(last // DAY + EPOCH_ORDINAL + 3)
    except (ValueError, OverflowError):
        return None
    # A clock that is set back over midnight can show a date before the bucket
    # shortly after the bucket began.  The bucket of T is then an earlier one.
    for start, stop, offset in offset_pieces(zone, first):
        u = max(start, t + 1)
        if u < stop and u + offset < first:
            return u
    for start, stop, offset in offset_pieces(zone, last):
        u = max(start, t + 1, last - offset)
        if u < stop:
            return u
    # Only a t beyond the pieces comes here, and there the range has ended.
    return t + 1


# --------------------------------------------------------------------------
# The evaluation


def evaluate(request):
    """Answer a request: {"t", "keep", "go"} or {"error"}."""
    try:
        rule = parse_rule(request["rule"])
        zone = request["timezone"]
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError) as problem:
        return {"error": str(problem)}
    now, protect, copies = request["now"], request["protect"], request["copies"]

    # Only certain copies of the past count for T, for buckets and for newest.
    counted = [c for c in copies if c["certain"] and c["time"] <= now]
    t = min(now, max(c["time"] for c in counted)) if counted else now

    # max() takes the first of equals, so the list is turned round in order to
    # prefer the copy that was committed last.
    newest = max(reversed(counted), key=lambda c: c["time"]) if counted else None

    kept_by_rule = set()
    parts = () if rule == ALL else rule
    for part in parts:
        if part.kind == "all":
            for c in counted:
                if t - c["time"] < part.count * DAY:
                    kept_by_rule.add(c["id"])
            continue
        key_of_t = bucket_key(part.kind, zone, t)
        earliest = {}
        for c in counted:
            key = bucket_key(part.kind, zone, c["time"])
            if not in_range(key, key_of_t, part.count):
                continue
            # A strict comparison leaves a tie to the copy committed first.
            if key not in earliest or c["time"] < earliest[key]["time"]:
                earliest[key] = c
        kept_by_rule.update(c["id"] for c in earliest.values())

    keep, go = [], []
    for c in copies:
        stays = (
            rule == ALL
            or not c["certain"]
            or c["time"] > now
            or c is newest
            or c["id"] in kept_by_rule
            or t - c["time"] < protect
            or c["leased"]
            or any(h["until"] is None or now < h["until"] for h in c["holds"])
        )
        (keep if stays else go).append(c["id"])
    return {"t": t, "keep": keep, "go": go}


# --------------------------------------------------------------------------
# The ordinary time


def commit_of(copy):
    """Return the moment of commit; it is the counted time unless it is given."""
    return copy.get("commit", copy["time"])


def ordinary_time(copy, history, rule, protect, tz):
    """Return the second at which the copy would go if T were the clock.

    `history` holds every copy that was ever pushed, in the order of commit and
    with the copy itself in it.  Return None if the copy would never go.

    Each thing that keeps the copy keeps it for a stretch of time.  The search
    starts at the commit, asks who keeps the copy at that instant, jumps to the
    end of the longest stretch, and repeats that until nobody keeps it.
    """
    if isinstance(rule, str):
        rule = parse_rule(rule)
    if rule == ALL or not copy["certain"]:
        return None

    # Only a copy that is earlier, or equal and committed before, can win.
    rivals = []
    before = True
    for other in history:
        if other["id"] == copy["id"]:
            before = False
            continue
        if other["certain"] and (
            other["time"] < copy["time"] or (before and other["time"] == copy["time"])
        ):
            rivals.append(other)
    if before:
        raise ValueError("the copy is not in its history")

    buckets = []  # Tuples (kind, key, count, the moment when a rival appears).
    span = protect
    for part in rule:
        if part.kind == "all":
            span = max(span, part.count * DAY)
            continue
        key = bucket_key(part.kind, tz, copy["time"])
        beaten = min(
            (commit_of(r) for r in rivals if bucket_key(part.kind, tz, r["time"]) == key),
            default=None,
        )
        buckets.append((part.kind, key, part.count, beaten))

    # Before its counted time the copy is in the future, and so it stays.
    t = max(commit_of(copy), copy["time"])
    while True:
        ends = []
        if t - copy["time"] < span:
            ends.append(copy["time"] + span)
        for hold in copy["holds"]:
            if hold["until"] is None:
                return None
            if t < hold["until"]:
                ends.append(hold["until"])
        for kind, key, count, beaten in buckets:
            if beaten is not None and t >= beaten:
                continue
            if not in_range(key, bucket_key(kind, tz, t), count):
                continue
            end = end_of_range(kind, tz, key, count, t)
            if end is None and beaten is None:
                return None
            ends.append(min(e for e in (end, beaten) if e is not None))
        if not ends:
            return t
        t = max(ends)


# --------------------------------------------------------------------------
# The self-test


def stamp(zone, *fields):
    """Return the instant of a local date and time in a zone."""
    return int(datetime(*fields, tzinfo=ZoneInfo(zone)).timestamp())


def new_copy(name, t, certain=True, holds=(), leased=False):
    return {
        "id": name,
        "time": t,
        "certain": certain,
        "holds": [{"until": u} for u in holds],
        "leased": leased,
    }


def slow_span_names(kind, zone, t, count):
    """Return the names of the span of T and the count-1 spans before it.

    This spells the spans out one by one, unlike the keys above.
    """
    if kind == "hours":
        top = datetime.fromtimestamp(t, timezone.utc)
        return {(top - timedelta(hours=i)).strftime("%Y-%m-%d %H") for i in range(count)}
    today = datetime.fromtimestamp(t, ZoneInfo(zone)).date()
    if kind == "days":
        return {str(today - timedelta(days=i)) for i in range(count)}
    if kind == "weeks":
        return {"%d-W%d" % (today - timedelta(days=7 * i)).isocalendar()[:2] for i in range(count)}
    if kind == "years":
        return {str(today.year - i) for i in range(count)}
    names = set()
    year, month = today.year, today.month
    for _ in range(count):
        names.add("%d-%d" % (year, month))
        month -= 1
        if month == 0:
            year, month = year - 1, 12
    return names


def slow_span_name(kind, zone, t):
    (name,) = slow_span_names(kind, zone, t, 1)
    return name


def slow_evaluate(request):
    """Evaluate once more, copy by copy, and ask for each copy who beats it."""
    rule = parse_rule(request["rule"])
    now, zone, copies = request["now"], request["timezone"], request["copies"]
    order = [i for i, c in enumerate(copies) if c["certain"] and not c["time"] > now]
    t = copies[max(order, key=lambda i: copies[i]["time"])]["time"] if order else now
    keep, go = [], []
    for i, c in enumerate(copies):
        reasons = []
        if rule == ALL or c["leased"] or i not in order:
            reasons.append("plain")
        else:
            age = t - c["time"]
            if age < request["protect"]:
                reasons.append("protect")
            if not any((copies[j]["time"], j) > (c["time"], i) for j in order):
                reasons.append("newest")
            for part in rule:
                if part.kind == "all":
                    if age < part.count * 24 * 60 * 60:
                        reasons.append("all")
                    continue
                name = slow_span_name(part.kind, zone, c["time"])
                if name in slow_span_names(part.kind, zone, t, part.count) and not any(
                    (copies[j]["time"], j) < (c["time"], i)
                    and slow_span_name(part.kind, zone, copies[j]["time"]) == name
                    for j in order
                ):
                    reasons.append(part)
            for hold in c["holds"]:
                if hold["until"] is None or hold["until"] > now:
                    reasons.append("hold")
        (keep if reasons else go).append(c["id"])
    return {"t": t, "keep": keep, "go": go}


def slow_kept(copy, history, rule_text, protect, zone, t):
    """Say whether evaluate() keeps the copy when T is t and a probe is newest."""
    pushed = [c for c in history if commit_of(c) <= t and c["time"] <= t]
    if not any(c["id"] == copy["id"] for c in pushed):
        return True
    pushed.append(new_copy("probe", t))
    answer = evaluate(
        {"rule": rule_text, "protect": protect, "timezone": zone, "now": t, "copies": pushed}
    )
    assert answer["t"] == t
    return copy["id"] in answer["keep"]


TEST_ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "America/Havana",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Antarctica/Casey",
)


def random_rule(rng, counts):
    parts = []
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(sorted(counts))
        number = rng.randint(1, counts[kind])
        if kind == "all":
            parts.append("%d days all" % number)
        else:
            parts.append("%d %s %s" % (number, kind, BUCKET_WORDS[kind]))
    return ", ".join(parts)


def test_rules():
    assert parse_rule("all") == ALL
    assert parse_rule("24 hours hourly, 2 days all") == (Part("hours", 24), Part("all", 2))
    for bad in (
        "", ",", "24 hours all", "3 weeks all", "2 months all", "1 years all", "5 hours daily",
        "5 days", "days daily", "0 days daily", "-1 days daily", "1.5 days all", "x days daily",
        "3 days daily,", "3 days daily all", "5 fortnights daily", "all, 3 days daily",
    ):
        try:
            parse_rule(bad)
        except RuleError:
            continue
        raise AssertionError("this rule was accepted: %r" % bad)


def test_examples():
    """Check a few cases that were worked out by hand."""
    base = stamp("Europe/Berlin", 2026, 3, 29, 12, 0)  # This day has 23 hours.

    def run(rule, copies, now=base, protect=0, zone="Europe/Berlin"):
        return evaluate(
            {"rule": rule, "protect": protect, "timezone": zone, "now": now, "copies": copies}
        )

    assert run("1 days all", []) == {"t": base, "keep": [], "go": []}
    # The day before begins 35 hours earlier, because an hour is missing.
    edge = base - 35 * HOUR
    copies = [new_copy("a", edge - 1), new_copy("b", edge), new_copy("c", edge + 1), new_copy("d", base)]
    assert run("2 days daily", copies) == {"t": base, "keep": ["b", "d"], "go": ["a", "c"]}
    assert run("3 days daily", copies)["keep"] == ["a", "b", "d"]
    # The newest copy decides on T, and a copy of the future does not.
    assert run("1 hours hourly", copies, now=base + 9 * DAY)["t"] == base
    assert run("1 hours hourly", copies, now=base - 1)["keep"] == ["b", "c", "d"]
    # Protection ends exactly when the age reaches it.
    old = [new_copy("x", base - 100), new_copy("y", base - 99), new_copy("z", base)]
    assert run("1 years yearly", old, protect=100)["keep"] == ["x", "y", "z"]
    old = [new_copy("w", base - 200)] + old
    assert run("1 years yearly", old, protect=100) == {"t": base, "keep": ["w", "y", "z"], "go": ["x"]}
    # A hold looks at the clock and ends exactly at its time.
    held = [new_copy("p", base - 9 * DAY, holds=[base]), new_copy("q", base - 9 * DAY, holds=[base + 1]),
            new_copy("r", base - 9 * DAY, holds=[None]), new_copy("s", base - 9 * DAY, leased=True),
            new_copy("u", base - 9 * DAY, certain=False), new_copy("v", base - 5 * DAY)]
    assert run("1 days daily", held) == {"t": base - 5 * DAY, "keep": ["q", "r", "s", "u", "v"], "go": ["p"]}
    # Of equal times the bucket keeps the first and 'newest' keeps the last.
    same = [new_copy("1", base), new_copy("2", base), new_copy("3", base)]
    assert run("1 days daily", same) == {"t": base, "keep": ["1", "3"], "go": ["2"]}
    # The week of New Year belongs to both years.
    zone = "America/New_York"
    week = [new_copy("mon", stamp(zone, 2025, 12, 29, 0, 0)), new_copy("sun", stamp(zone, 2026, 1, 4, 23, 59, 59)),
            new_copy("next", stamp(zone, 2026, 1, 5, 0, 0))]
    assert run("2 weeks weekly", week, now=base, zone=zone)["go"] == ["sun"]


def test_calendar(rng):
    """Compare the ends of ranges with a search minute by minute."""
    for zone in TEST_ZONES:
        for year, month, day in ((2009, 11, 1), (2010, 3, 5), (2011, 3, 13), (2011, 11, 6), (2011, 12, 30), (2026, 4, 5)):
            middle = (date(year, month, day).toordinal() - EPOCH_ORDINAL) * DAY
            for _ in range(4):
                t = middle + 60 * rng.randint(-1440, 1440)
                key = bucket_key("days", zone, t)
                slow = next(
                    u for u in range(t + 60, t + 4 * DAY, 60) if bucket_key("days", zone, u) != key
                )
                fast = end_of_range("days", zone, key, 1, t)
                assert fast == slow, (zone, t, fast, slow)


def test_evaluate(rng, cases):
    """Compare evaluate() with the slow version on random requests."""
    for _ in range(cases):
        zone = rng.choice(TEST_ZONES)
        base = stamp("UTC", rng.randint(2005, 2035), rng.randint(1, 12), rng.randint(1, 28), rng.randint(0, 23))
        reach = rng.choice((3 * HOUR, 4 * DAY, 60 * DAY, 900 * DAY))
        copies = []
        for i in range(rng.randint(0, 14)):
            t = base - rng.randint(-reach // 20, reach)
            if copies and rng.random() < 0.2:
                t = rng.choice(copies)["time"]
            holds = [rng.choice((None, base, base + 1, base + DAY))] if rng.random() < 0.1 else []
            copies.append(new_copy("c%d" % i, t, rng.random() < 0.85, holds, rng.random() < 0.05))
        if rng.random() < 0.8:
            copies.sort(key=lambda c: c["time"])
        counts = {"hours": 5, "days": 6, "weeks": 5, "months": 14, "years": 3, "all": 4}
        rule = "all" if rng.random() < 0.03 else random_rule(rng, counts)
        request = {"rule": rule, "protect": rng.choice((0, 1, HOUR, DAY)), "timezone": zone,
                   "now": base, "copies": copies}
        fast, slow = evaluate(request), slow_evaluate(request)
        assert fast == slow, (request, fast, slow)


def test_ordinary(rng, cases, step, start_reach, counts, probes=200):
    """Compare ordinary_time() with a walk through time in even steps.

    The walk visits each multiple of the step, some random instants, and the
    exact moments at which a keeper can end.  Walks of a second and of a minute
    miss nothing, and longer steps trade that for a longer reach.
    """
    visits = 0
    for _ in range(cases):
        zone = rng.choice(TEST_ZONES)
        # Half of the cases lie where clocks were set back over midnight.
        year, month, day = rng.choice(
            ((2009, 11, 1), (2010, 3, 5), (2011, 11, 6), (2011, 12, 30), (2026, 3, 29), (2026, 12, 30))
        )
        base = (date(year, month, day).toordinal() - EPOCH_ORDINAL) * DAY + rng.randint(-3, 30) * HOUR
        rule = random_rule(rng, counts)
        protect = rng.choice((0, 0, rng.randint(1, 3 * step), HOUR))
        history = []
        for i in range(rng.randint(1, 5)):
            t = base + rng.randint(0, start_reach)
            if history and rng.random() < 0.2:
                t = history[-1]["time"]
            holds = [t + rng.randint(0, 4 * step) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
            history.append(new_copy("c%d" % i, t, rng.random() < 0.9, holds))
            if rng.random() < 0.2:
                history[-1]["commit"] = t + rng.randint(-2 * step, 10 * step)
        if rng.random() < 0.7:
            history.sort(key=commit_of)
        for copy in history:
            fast = ordinary_time(copy, history, rule, protect, zone)
            if not copy["certain"]:
                assert fast is None
                continue
            start = max(commit_of(copy), copy["time"])
            assert fast is not None and fast >= start
            check = {start, fast - 1}
            check.update(range((start // step + 1) * step, fast, step))
            check.update(copy["time"] + n * DAY + d for n in range(1, 5) for d in (-1, 0))
            check.update(copy["time"] + protect + d for d in (-1, 0))
            check.update(h["until"] + d for h in copy["holds"] for d in (-1, 0))
            check.update(commit_of(c) + d for c in history for d in (-1, 0))
            check.update(rng.randint(start, fast) for _ in range(probes))
            for t in check:
                if start <= t < fast:
                    visits += 1
                    assert slow_kept(copy, history, rule, protect, zone, t), (copy, history, rule, protect, zone, t, fast)
            assert not slow_kept(copy, history, rule, protect, zone, fast), (copy, history, rule, protect, zone, fast)
    return visits


def self_test():
    began = clock.time()
    rng = random.Random(1)
    test_rules()
    test_examples()
    test_calendar(rng)
    test_evaluate(rng, 2500)
    visits = 0
    # The first walk goes second by second, the next minute by minute, and the
    # last two go from hour to hour and then from day to day.
    visits += test_ordinary(rng, 6, 1, 1200, {"hours": 1}, probes=0)
    visits += test_ordinary(rng, 40, 60, 5 * HOUR, {"hours": 3, "days": 1}, probes=20)
    visits += test_ordinary(rng, 60, HOUR, 2 * DAY, {"hours": 40, "days": 5, "weeks": 1, "all": 3}, probes=20)
    visits += test_ordinary(rng, 120, DAY, 20 * DAY, {"days": 9, "weeks": 4, "months": 5, "years": 2, "all": 3}, probes=20)
    assert ordinary_time(new_copy("a", 5), [new_copy("a", 5)], "all", 0, "UTC") is None
    held = new_copy("a", 5, holds=[None])
    assert ordinary_time(held, [held], "1 hours hourly", 0, "UTC") is None
    print("self-test: all is well; %d instants visited, %.1f s" % (visits, clock.time() - began))


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    else:
        sys.exit("usage: model.py --self-test")
