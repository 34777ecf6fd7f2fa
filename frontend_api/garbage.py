"""The garbage collector, set for what an API process does: many requests at once, and few cycles in them."""

import gc

_NEW = 50_000


def collect_seldom() -> None:
    """To be called once, when all that stays for the life of the process has been made.

    A request makes some hundred objects, which reference counting frees as soon as it is answered. With
    the default of 700 the collector would look through those of a few dozen requests under way again and
    again in vain, and now and then through everything that was imported, while all of them wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW, 20, 20)
