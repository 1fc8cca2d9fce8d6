"""A stand-in for a model, for when there is none."""


class OfflineProvider:
    pass
