#!/usr/bin/env python3
"""Check the retention-eval program against the model in model.py.

    check.py year   --seed N [--zones A,B,C]   plays a year of hourly pushes.
    check.py thief  --seed N --histories K     lets a thief push junk.
    check.py random --seed N --cases K         compares random requests.

The program is found through the variable RETENTION_EVAL; without it, the
debug build of this repository is used.  `--against model` puts the model in
the place of the program, in order to try out this script alone.

Each subcommand prints its seed and a summary line.  It stops at the first
difference, prints the whole request as JSON, and exits with code 1.
"""

import argparse
import json
import os
import random
import select
import subprocess
import sys
import time as clock
from datetime import date

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import model  # noqa: E402  (the path is set above)

HOUR, DAY = model.HOUR, model.DAY
ANSWER_SECONDS = 60


class Failure(Exception):
    """A check found a difference; it carries the request that shows it."""

    def __init__(self, text, request, **more):
        super().__init__(text)
        self.request = request
        self.more = more


# --------------------------------------------------------------------------
# The one who answers


class Model:
    name = "model"

    def answer(self, request):
        return model.evaluate(request)

    def close(self):
        pass


class Program:
    """One process answers all requests, line by line."""

    def __init__(self):
        root = os.path.dirname(os.path.dirname(HERE))
        path = os.environ.get("RETENTION_EVAL") or os.path.join(root, "target/debug/retention-eval")
        if not os.path.exists(path):
            sys.exit("there is no program at %s; set RETENTION_EVAL or use --against model" % path)
        self.name = path
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def answer(self, request):
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failure("the program has ended", request) from None
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_SECONDS)
        if not ready:
            raise Failure("the program gave no answer in %d s" % ANSWER_SECONDS, request)
        line = self.process.stdout.readline()
        if not line:
            raise Failure("the program has ended without an answer", request)
        try:
            return json.loads(line)
        except ValueError:
            raise Failure("the answer is not JSON: %r" % line, request) from None

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


FIELDS = ("id", "time", "certain", "holds", "leased")


def make_request(rule, protect, zone, now, copies):
    """Build a request; fields that only the simulation needs are left out."""
    return {
        "rule": rule,
        "protect": protect,
        "timezone": zone,
        "now": now,
        "copies": [{f: c[f] for f in FIELDS} for c in copies],
    }


def compare(answerer, request, where):
    """Compare both answers and return that of the model."""
    expected = model.evaluate(request)
    got = answerer.answer(request)
    if not isinstance(got, dict):
        raise Failure("%s: the answer is no object" % where, request, got=got)
    if "error" in expected or "error" in got:
        same = "error" in expected and "error" in got
    else:
        same = all(expected[f] == got.get(f) for f in ("t", "keep", "go"))
    if not same:
        raise Failure("%s: the answers differ" % where, request, model=expected, program=got)
    return expected


def new_copy(name, t, certain=True, holds=(), leased=False):
    return model.new_copy(name, t, certain, holds, leased)


def midnight_utc(year, month, day):
    return (date(year, month, day).toordinal() - model.EPOCH_ORDINAL) * DAY


# --------------------------------------------------------------------------
# A year of pushes

YEAR_RULES = (
    ("24 hours hourly, 30 days daily, 12 months monthly", DAY),
    ("48 hours hourly, 14 days daily, 8 weeks weekly, 3 years yearly", 3 * DAY),
    ("2 days all, 10 days daily, 26 weeks weekly, 5 months monthly", 0),
)


def play_year(answerer, seed, zone, rule, protect):
    rng = random.Random("year %d %s" % (seed, zone))
    start, stop = midnight_utc(2026, 1, 1), midnight_utc(2027, 1, 1)
    absent = start + rng.randint(140, 165) * DAY + rng.randint(0, 23) * HOUR
    absent_end = absent + 60 * DAY
    # Each jump is (begin, end, seconds that the clock is wrong by).
    ahead = start + rng.randint(20 * 24, 120 * 24) * HOUR + rng.randint(0, HOUR - 1)
    behind = start + rng.randint(240 * 24, 340 * 24) * HOUR + rng.randint(0, HOUR - 1)
    jumps = [
        (ahead, ahead + rng.randint(3 * HOUR, 9 * HOUR), 3652 * DAY),
        (behind, behind + rng.randint(3 * HOUR, 9 * HOUR), -365 * DAY),
    ]

    def clock_error(real):
        return next((wrong for begin, end, wrong in jumps if begin <= real < end), 0)

    copies, everything = [], []
    number = {"pushes": 0, "uncertain": 0, "pruned": 0, "comparisons": 0, "went": 0}

    def check(now, some, what):
        request = make_request(rule, protect, zone, now, some)
        answer = compare(answerer, request, "year, %s, %s" % (zone, what))
        number["comparisons"] += 1
        number["went"] += len(answer["go"])
        return answer

    for day_start in range(start, stop, DAY):
        moments = [h + rng.randint(0, HOUR - 1) for h in range(day_start, day_start + DAY, HOUR)]
        for real in moments:
            if absent <= real < absent_end:
                continue
            wrong = clock_error(real)
            now = real + wrong
            copy = new_copy("p%d" % number["pushes"], now, certain=wrong == 0)
            number["pushes"] += 1
            if rng.random() < 0.004:
                until = None if rng.random() < 0.1 else now + rng.randint(1, 90 * DAY)
                copy["holds"].append({"until": until})
            copies.append(copy)
            everything.append(copy)
            # Now and then a reader takes a lease, and soon gives it back.
            if rng.random() < 0.01:
                rng.choice(copies)["leased"] = True
            if rng.random() < 0.02:
                for c in copies:
                    c["leased"] = False
            last = real == moments[-1]
            if wrong:
                # No pruning happens here, but the answers must agree all the same.
                number["uncertain"] += 1
                check(now, copies, "the clock is wrong")
                continue
            # The day's last set is compared before it is pruned, because a
            # set that was just pruned has little left to go.
            if last:
                answer = check(now, copies, "the last push of a day")
            else:
                answer = model.evaluate(make_request(rule, protect, zone, now, copies))
            if answer["go"]:
                gone = set(answer["go"])
                number["pruned"] += len(gone)
                copies = [c for c in copies if c["id"] not in gone]
        day_end = day_start + DAY
        check(day_end + clock_error(day_end), copies, "the end of a day")
        if (day_end - start) // DAY % 30 == 0:
            # All that was ever pushed makes a large set with much to go.
            check(day_end + clock_error(day_end), everything, "all pushes so far")

    ids = {c["id"] for c in copies}
    lost = [c["id"] for c in everything if not c["certain"] and c["id"] not in ids]
    if lost or everything[-1]["id"] not in ids:
        raise Failure("an uncertain copy or the newest one was deleted",
                      make_request(rule, protect, zone, stop, everything), lost=lost)
    print(
        "  %s: %d pushes (%d of them uncertain), %d pruned, %d comparisons with %d copies to go, %d copies remain"
        % (zone, number["pushes"], number["uncertain"], number["pruned"], number["comparisons"],
           number["went"], len(copies))
    )
    return number["comparisons"], len(copies)


def year(args, answerer):
    comparisons = remaining = 0
    zones = [z.strip() for z in args.zones.split(",") if z.strip()]
    for i, zone in enumerate(zones):
        rule, protect = YEAR_RULES[i % len(YEAR_RULES)]
        more, left = play_year(answerer, args.seed, zone, rule, protect)
        comparisons += more
        remaining += left
    return "%d zones, %d comparisons, %d copies remain" % (len(zones), comparisons, remaining)


# --------------------------------------------------------------------------
# The thief

THIEF_ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # Summer time is half an hour here.
    "America/St_Johns",  # Until 2011 the clock was set back over midnight.
    "America/Havana",  # Summer time takes away the first hour of a day.
    "Asia/Kathmandu",  # The offset has a quarter of an hour.
    "Pacific/Apia",  # The 30th of December 2011 is missing here.
)
THIEF_COUNTS = {"hours": 48, "days": 30, "weeks": 10, "months": 12, "years": 3, "all": 20}
SMALL_COUNTS = {"hours": 6, "days": 5, "weeks": 3, "months": 3, "years": 1, "all": 3}


def junk_moments(rng, begin, reach):
    """Return the moments of the thief's pushes after the compromise."""
    moments = []
    for _ in range(rng.randint(1, 4)):
        at = begin + rng.choice((0, 0, rng.randint(0, reach)))
        how = rng.randint(0, 4)
        count = rng.randint(3, 25)
        if how == 0:  # All of them fall in one second.
            moments += [at] * count
        elif how == 1:  # A burst follows in a few seconds or minutes.
            for _ in range(count):
                at += rng.choice((0, 1, 1, 60))
                moments.append(at)
        elif how == 2:  # One falls in each hour, day, week, month or so.
            step = rng.choice((HOUR, HOUR, DAY, DAY, 7 * DAY, 30 * DAY, 365 * DAY))
            for _ in range(count if step < 365 * DAY else 4):
                moments.append(at)
                at += step
        elif how == 3:  # They fall anywhere.
            moments += [begin + rng.randint(0, reach) for _ in range(count)]
        else:  # They crowd around midnights.
            for _ in range(count):
                at = (at // DAY + 1) * DAY + rng.choice((-1, 0, 1, HOUR))
                moments.append(at)
    return moments


def play_thief(answerer, seed, index, number):
    rng = random.Random("thief %d %d" % (seed, index))
    zone = rng.choice(THIEF_ZONES)
    rule = "all" if rng.random() < 0.02 else model.random_rule(
        rng, rng.choice((THIEF_COUNTS, SMALL_COUNTS)))
    protect = rng.choice((0, 0, 1, HOUR, DAY, 3 * DAY, 30 * DAY, rng.randint(0, 10 * DAY)))
    start = midnight_utc(rng.randint(2008, 2033), rng.randint(1, 12), rng.randint(1, 28))
    if rng.random() < 0.2:  # Some histories start near an odd change of clocks.
        start = midnight_utc(*rng.choice(((2011, 12, 29), (2010, 11, 6), (2026, 3, 28), (2026, 10, 24))))
    reach = rng.choice((2, 14, 60, 200, 400, 1000)) * DAY
    compromise = start + reach

    # An event is (moment, a number that orders equal moments, what happens).
    events = []
    for _ in range(rng.randint(15, 50)):
        at = start + rng.randint(0, reach)
        events += [(at + i * rng.choice((0, 1, 60)), 0, "honest") for i in range(rng.choice((1, 1, 1, 3)))]
    if rng.random() < 0.3:  # Some sender pushes just before the thief comes.
        events.append((compromise, 0, "honest"))
    # Honest pushes belong to the time before, and nothing else comes first.
    events = [(min(at, compromise), order, what) for at, order, what in events]
    junk_reach = rng.choice((DAY, 14 * DAY, 100 * DAY, reach, 3 * reach))
    events += [(at, 1, "junk") for at in junk_moments(rng, compromise, junk_reach)]
    if rng.random() < 0.5:  # The honest sender goes on beside the thief.
        events += [(compromise + rng.randint(0, junk_reach), 2, "late") for _ in range(rng.randint(1, 12))]
    events += [(start + rng.randint(0, reach + junk_reach), 3, "prune only") for _ in range(8)]
    events.sort()

    copies, honest, junk = [], [], set()
    watched = {}  # Honest copies from before the compromise, by id.
    for serial, (now, _, what) in enumerate(events):
        if what != "prune only":
            copy = new_copy("%s%d" % (what, serial), now)
            copy["commit"] = now
            if rng.random() < (0.1 if what == "honest" else 0.03):
                for _ in range(rng.randint(1, 2)):
                    until = None if rng.random() < 0.15 else now + rng.randint(0, reach)
                    copy["holds"].append({"until": until})
            if what != "junk" and rng.random() < 0.03:
                # The receiver's clock was wrong for this one push.
                copy["certain"] = False
                copy["time"] += rng.choice((-365, 3652)) * DAY
            copies.append(copy)
            if what == "junk":
                junk.add(copy["id"])
                number["junk"] += 1
            else:
                honest.append(copy)
            if what == "honest":
                watched[copy["id"]] = copy
                number["honest"] += 1
        if copies and rng.random() < 0.05:
            rng.choice(copies)["leased"] = True
        if rng.random() < 0.05:
            for c in copies:
                c["leased"] = False

        request = make_request(rule, protect, zone, now, copies)
        answer = answerer.answer(request)
        number["prunes"] += 1
        where = "thief, history %d" % index
        if not isinstance(answer, dict) or "error" in answer:
            raise Failure("%s: the program gave no judgement" % where, request, program=answer)
        gone = set(answer["go"])
        if not gone.isdisjoint(answer["keep"]) or gone | set(answer["keep"]) != {c["id"] for c in copies}:
            raise Failure("%s: keep and go do not share out the copies" % where, request, program=answer)

        counted = [c for c in copies if c["certain"] and c["time"] <= now]
        if counted:
            latest = max(c["time"] for c in counted)
            newest = [c["id"] for c in counted if c["time"] == latest][-1]
            if newest in gone:
                raise Failure("%s: the newest copy %s goes" % (where, newest), request, program=answer)
        for c in copies:
            if c["id"] not in gone:
                continue
            if c["leased"]:
                raise Failure("%s: the leased copy %s goes" % (where, c["id"]), request, program=answer)
            if c["id"] not in watched:
                continue
            number["judged"] += 1
            number["after"] += now >= compromise and bool(junk)
            ordinary = model.ordinary_time(c, honest, rule, protect, zone)
            if ordinary is None or now < ordinary:
                raise Failure(
                    "%s: the honest copy %s goes at %d, before its ordinary time" % (where, c["id"], now),
                    request, program=answer, ordinary=ordinary, compromise=compromise, honest=honest,
                )
            number["on the second"] += now == ordinary
        copies = [c for c in copies if c["id"] not in gone]
    number["remain"] += sum(c["id"] in watched for c in copies)


def thief(args, answerer):
    number = dict.fromkeys(
        ("honest", "junk", "prunes", "judged", "after", "on the second", "remain"), 0)
    chosen = range(args.histories) if args.only is None else [args.only]
    for index in chosen:
        play_thief(answerer, args.seed, index, number)
    return (
        "%d histories, %d prunes, %d honest and %d junk pushes; %d honest copies went "
        "(%d of them after the junk began, %d on the very second), none before its ordinary time; "
        "%d honest copies remain"
        % (len(chosen), number["prunes"], number["honest"], number["junk"], number["judged"],
           number["after"], number["on the second"], number["remain"])
    )


# --------------------------------------------------------------------------
# Random requests

RANDOM_ZONES = THIEF_ZONES + (
    "Europe/Dublin",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "America/Sao_Paulo",
    "Antarctica/Troll",
    "Pacific/Chatham",
    "Asia/Kolkata",
)
BAD_RULES = (
    "", "24 hours all", "3 weeks all", "2 months all", "1 years all", "5 hours daily", "7 days weekly",
    "5 days", "days daily", "-1 days daily", "1.5 days all", "x days daily", "5 fortnights daily",
    "24 hours hourly, 3 weeks all", "every day",
)
ODD_DATES = (
    (2026, 3, 29), (2026, 10, 25), (2026, 3, 8), (2026, 11, 1), (2026, 4, 5), (2026, 10, 4),
    (2011, 12, 30), (2011, 11, 6), (2009, 11, 1), (2018, 11, 4), (2019, 2, 17), (2024, 2, 29),
    (2026, 1, 1), (2024, 12, 30), (2021, 1, 3), (2027, 1, 1), (2028, 12, 31), (2026, 7, 1),
)
BACK_OVER_MIDNIGHT = (("Antarctica/Casey", (2010, 3, 5)), ("America/St_Johns", (2009, 11, 1)))


def offset_change_near(zone, t):
    """Return a change of the offset within the 200 days after t, or t itself."""
    before = model.utc_offset(zone, t)
    for later in range(t + DAY, t + 200 * DAY, DAY):
        if model.utc_offset(zone, later) != before:
            return model.transition_between(zone, later - DAY, later)
    return t


def start_of_span(kind, zone, key):
    """Return about the first instant of a span, good enough for a test case."""
    if kind == "hours":
        return key * HOUR
    naive = (model.first_date(kind, key).toordinal() - model.EPOCH_ORDINAL) * DAY
    return naive - model.utc_offset(zone, naive)


def random_request(rng):
    zone = rng.choice(RANDOM_ZONES)
    if rng.random() < 0.5:
        base = midnight_utc(*rng.choice(ODD_DATES))
    else:
        base = midnight_utc(rng.randint(2006, 2036), rng.randint(1, 12), rng.randint(1, 28))
    how = rng.randint(0, 4)
    if how == 0:
        base = offset_change_near(zone, base)
    elif how == 1:  # This is a local midnight, as a rule.
        base -= model.utc_offset(zone, base)
    elif how == 2:
        base += rng.randint(-2 * DAY, 2 * DAY)
    elif how == 3:
        base += rng.randint(-30, 30) * HOUR
    over_midnight = rng.random() < 0.05
    if over_midnight:
        # The clock goes back over midnight here: a date ends, begins again an
        # hour or more later, and the bucket of T can lie before a copy's.
        zone, odd_date = rng.choice(BACK_OVER_MIDNIGHT)
        base = offset_change_near(zone, midnight_utc(*odd_date) - 2 * DAY)
        base += rng.choice((0, 1, 1800, HOUR - 1))
    else:
        base += rng.choice((0, 0, -1, 1, -HOUR, HOUR, -1800, 1800, 60))

    if rng.random() < 0.03:
        rule = rng.choice(BAD_RULES)
    elif rng.random() < 0.04:
        rule = "all"
    else:
        rule = model.random_rule(rng, rng.choice((THIEF_COUNTS, SMALL_COUNTS, dict.fromkeys(THIEF_COUNTS, 2))))
    protect = rng.choice((0, 0, 0, 1, 60, HOUR, DAY, 7 * DAY, rng.randint(0, 40 * DAY)))

    # Most times lie on an edge, and some of them lie anywhere.
    edges = [base, base, base - protect]
    for piece in rule.split(","):
        words = piece.split()
        if rule == "all" or len(words) != 3 or not words[0].isdigit():
            continue
        count, kind, word = int(words[0]), words[1], words[2]
        if word == "all":
            edges += [base - count * DAY] * 2
        elif model.BUCKET_WORDS.get(kind) == word:
            key = model.bucket_key(kind, zone, base)
            for back in {0, count, count - 1, count // 2}:
                edges.append(start_of_span(kind, zone, key - back))
    edges.append(offset_change_near(zone, base - 150 * DAY))
    now = base + rng.choice((0, 0, 0, 1, -1, HOUR, DAY, 40 * DAY, -HOUR, -DAY, -40 * DAY))
    reach = rng.choice((2 * HOUR, 3 * DAY, 40 * DAY, 400 * DAY, 1500 * DAY))
    copies = []
    if over_midnight:
        rule, protect, now = "%d days daily" % rng.randint(1, 9), 0, base + rng.choice((0, 0, 9))
        copies = [new_copy("b%d" % i, base - rng.randint(0, 2 * HOUR)) for i in range(rng.randint(0, 3))]
        copies.append(new_copy("last", base))
    for i in range(rng.choice((0, 1, 2, rng.randint(3, 12), rng.randint(3, 12), rng.randint(10, 40)))):
        what = rng.random()
        if what < 0.45:
            t = rng.choice(edges) + rng.choice((0, 0, -1, 1, -2, 59, HOUR - 1, -HOUR, 1800, DAY - 1))
        elif what < 0.60 and copies:
            t = rng.choice(copies)["time"] + rng.choice((0, 0, 0, 1, -1))
        elif what < 0.66:
            t = now + rng.choice((0, 1, 1, 2, DAY, 3652 * DAY))
        else:
            t = base - rng.randint(0, reach)
        holds = []
        while rng.random() < 0.12:
            holds.append(rng.choice((None, now, now + 1, now - 1, t, base, now + DAY)))
        copies.append(new_copy("c%d" % i, t, rng.random() < 0.88, holds, rng.random() < 0.05))
    if rng.random() < 0.02:
        for c in copies:
            c["certain"] = False
    order = rng.random()
    if order < 0.6:
        copies.sort(key=lambda c: c["time"])
    elif order < 0.7:
        copies.sort(key=lambda c: -c["time"])
    for c in copies:
        if rng.random() < 0.02:
            c["id"] = "copy %s of zone \u00e9" % c["id"]
    if rng.random() < 0.05 and copies:  # Protection may end on the very second.
        protect = max(0, base - rng.choice(copies)["time"] + rng.choice((0, 1)))
    if rng.random() < 0.01:
        zone = "Nowhere/Atlantis"
    return make_request(rule, protect, zone, now, copies)


def random_cases(args, answerer):
    number = {"copies": 0, "go": 0, "error": 0}
    chosen = range(args.cases) if args.only is None else [args.only]
    for index in chosen:
        request = random_request(random.Random("random %d %d" % (args.seed, index)))
        answer = compare(answerer, request, "random, case %d" % index)
        number["copies"] += len(request["copies"])
        number["error"] += "error" in answer
        number["go"] += len(answer.get("go", ()))
    return "%d requests with %d copies, %d copies to go, %d refused requests" % (
        len(chosen), number["copies"], number["go"], number["error"])


# --------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("year", "thief", "random"):
        command = commands.add_parser(name)
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--against", choices=("program", "model"), default="program")
        if name == "year":
            command.add_argument("--zones", default="Europe/Berlin,America/New_York,Australia/Lord_Howe")
        elif name == "thief":
            command.add_argument("--histories", type=int, default=100)
            command.add_argument("--only", type=int, help="play only the history of this number")
        else:
            command.add_argument("--cases", type=int, default=2000)
            command.add_argument("--only", type=int, help="compare only the case of this number")
    args = parser.parse_args()

    answerer = Model() if args.against == "model" else Program()
    print("%s: seed %d, against %s" % (args.command, args.seed, answerer.name), flush=True)
    began = clock.time()
    try:
        run = {"year": year, "thief": thief, "random": random_cases}[args.command]
        summary = run(args, answerer)
    except Failure as failure:
        print("%s: FAILED with seed %d: %s" % (args.command, args.seed, failure))
        for name, value in failure.more.items():
            print("%s: %s" % (name, json.dumps(value)))
        print("request: %s" % json.dumps(failure.request))
        sys.exit(1)
    finally:
        answerer.close()
    print("%s: ok; %s; seed %d, %.1f s" % (args.command, summary, args.seed, clock.time() - began))


if __name__ == "__main__":
    main()
