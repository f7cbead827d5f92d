"""Every error a user can meet. Each message is one line: what is wrong and what to do next."""


class PersonaLiveError(Exception):
    """Base of all errors raised on purpose. ``str(error)`` is one line for a person."""


class InputError(PersonaLiveError):
    """A file, image, clip or argument given by the user cannot be used."""


class FaceNotFoundError(InputError):
    """No face where one is needed."""


class OutputError(PersonaLiveError):
    """The result cannot be written where it was asked for."""


class CheckpointError(PersonaLiveError):
    """Weights are missing, incomplete, misshapen, unsafe or unreadable."""


class DownloadError(PersonaLiveError):
    """Weights could not be fetched or did not match their published hash."""


class DeviceError(PersonaLiveError):
    """The requested device or dtype is not available, or its memory is not enough."""


class TrainingError(PersonaLiveError):
    """Training cannot go on; what was reached is kept."""
