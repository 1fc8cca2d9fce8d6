"""A deterministic stand-in for a model: no key, no network, and no language model either.

words · question · conversation               what is asked, and what was done for it so far
evidence · sections · shapes                  what the results say, line by line
wanted · titles · ranking · passages          which lines of it matter
comparing · values                            the value that is asked for, where one is
schemas · filling · following · planning      which tools to call, and with what
answering                                     the answer in words
facts · patterns · complaints · typed         the answer in the shape of a schema
provider                                      all of it: a request in, a reply out
"""

from __future__ import annotations

from agentloop_providers.offline.provider import OfflineProvider

__all__ = ["OfflineProvider"]
