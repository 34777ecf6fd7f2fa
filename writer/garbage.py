"""The garbage collector, set for what a writer does: batches of many objects, and no cycles in them."""

import gc

_NEW = 1_500_000


def collect_seldom() -> None:
    """To be called once, when all that stays for the life of the process has been made.

    A batch of 5,000 makes about 200,000 objects, which reference counting frees as soon as it is done, and
    several batches are in work at a time. With the default of 700 the collector would look through them
    again and again in vain, and now and then through everything that was imported, too: that took a tenth
    of the writer's time, and with a threshold that is less than what is in work, a twentieth still.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW, 20, 20)
