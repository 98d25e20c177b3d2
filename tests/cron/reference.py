"""Writes reference.txt: what croniter says of 100,000 cron jobs. `src/background/schedule.rs` must say the same.

    pip install croniter==7.0.0
    python tests/cron/reference.py            writes the file
    python tests/cron/reference.py 17         prints the hundred answers of block 17 (lines are counted from 0)

Jobs and instants come from a small generator that the test in Rust has too, so that the file holds no more than a
digest (FNV-1a, 64 bits) for each hundred answers. An answer is the next run in seconds since 1970, in UTC, or -1:
never.
"""

import pathlib
import sys
from datetime import datetime, timedelta, timezone

from croniter import CroniterBadDateError, croniter

BLOCKS = 1000
BLOCK = 100
UNTIL = 4102444800  # 2100
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Generator:
    """Knuth's 64-bit linear congruential generator; the upper half of its state."""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 32) % bound

    def field(self, one_in, low, high, step_max):
        kind = self.below(one_in)
        value = low + self.below(high - low + 1)
        step = 2 + self.below(step_max - 1)
        return {0: value, 1: -step}.get(kind, -1)

    def job(self):
        minute = self.field(3, 0, 59, 60)
        hour = self.field(3, 0, 23, 24)
        day = self.field(4, 1, 31, 31)
        month = self.field(4, 1, 12, 12)
        weekday = self.field(4, 0, 7, 7)
        after = (self.below(2**32) * 2**32 + self.below(2**32)) % UNTIL
        return (minute, hour, day, month, weekday), after


def expression(field, low, high):
    if field == -1:
        return "*"
    if field >= 0:
        return str(field % 7 if high == 6 else field)
    return ",".join(str(value) for value in range(low, high + 1) if value % -field == 0)


def answer(fields, after):
    minute, hour, day, month, weekday = fields
    text = " ".join(
        [
            expression(minute, 0, 59),
            expression(hour, 0, 23),
            expression(day, 1, 31),
            expression(month, 1, 12),
            expression(weekday, 0, 6),
        ]
    )
    start = EPOCH + timedelta(seconds=after)
    try:
        found = croniter(text, start, day_or=day >= 0 and weekday >= 0).get_next(datetime)
    except CroniterBadDateError:
        return -1
    return int((found - EPOCH).total_seconds())


def digest(answers):
    value = 0xCBF29CE484222325
    for number in answers:
        for byte in number.to_bytes(8, "little", signed=True):
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def block(number):
    generator = Generator(number)
    for _ in range(BLOCK):
        fields, after = generator.job()
        yield fields, after, answer(fields, after)


def main():
    if len(sys.argv) > 1:
        for fields, after, found in block(int(sys.argv[1])):
            print(*fields, after, found)
        return
    lines = (f"{digest(found for _, _, found in block(number)):016x}\n" for number in range(BLOCKS))
    pathlib.Path(__file__).with_name("reference.txt").write_text("".join(lines))


main()
