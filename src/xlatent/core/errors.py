"""The exceptions and the warning that xlatent raises for what a user can put right."""


class XlatentError(Exception):
    """Base of all errors a user can cause; its text is one sentence fit for a terminal."""


class ReadError(XlatentError):
    """A file is missing, is not what was expected, or holds values that make no sense."""


class InputError(ReadError):
    """What a workflow was to read is not there or holds nothing of use, so that nothing was done."""


class ResponseError(XlatentError):
    """An ARF or RMF does not fit its spectrum, or none was given where one is needed."""


class ModelError(XlatentError):
    """A model bundle is unknown, damaged, or does not fit the request."""


class WriteError(XlatentError):
    """An output cannot be written: its suffix is unknown or its folder is not writable."""


class ParameterError(XlatentError, ValueError):
    """An argument has the wrong shape, unit or range."""


class WorkerError(XlatentError):
    """Processes or machines that shared the work were lost, or see other files or another xlatent."""


class XlatentWarning(UserWarning):
    """Something was repaired or passed over while reading.

    Parameters
    ----------
    text : str
        Names the file and the remedy.
    kind : str, optional
        What happened, in words that name no file, so that warnings of many files can be told together; the text if
        not given.
    file : str, optional
        The file.
    flag : str, optional
        Which of `xlatent.core.flags.FLAGS` rows of the spectrum carry for it; empty where no number is wrong.
    """

    def __init__(self, text: str, kind: str = "", file: str = "", flag: str = "") -> None:
        super().__init__(text)
        self.kind = kind or text
        self.file = file
        self.flag = flag
