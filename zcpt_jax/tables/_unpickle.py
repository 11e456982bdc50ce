"""Unpickling of plain data from untrusted pickles, without executing any code."""

import collections
import pickle
from typing import Any, BinaryIO

import numpy as np

from zcpt_jax.types import InputError


class _Inert:
    """Inert placeholder, for instance for a tensor, that absorbs calls and states."""

    __slots__ = ()

    def __call__(self, *_: object) -> "_Inert":
        return self

    def __setstate__(self, _: object) -> None:
        """Ignore the state, so that a pickle cannot affect later pickles."""


_INERT = _Inert()


class _Encode(_Inert):
    """Decoder of bytes in pickles of protocol 2: one character per byte value."""

    __slots__ = ()

    def __call__(self, *args: object) -> Any:
        text, encoding = args
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError("bytes are not written as NumPy or PyTorch write them")
        return text.encode("latin1")


class _Dtype:
    """Type of a NumPy number, read from the pickle without NumPy."""

    __slots__ = ("code", "order")

    def __init__(self, code: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


class _MakeDtype(_Inert):
    __slots__ = ()

    def __call__(self, *args: object) -> Any:
        return _Dtype(args[0])


class _Scalar(_Inert):
    """Converter of NumPy scalars to Python numbers."""

    __slots__ = ()

    def __call__(self, *args: object) -> Any:
        dtype, data = args
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            return _INERT
        if dtype.code not in ("f2", "f4", "f8", "i4", "i8"):
            return _INERT
        return np.frombuffer(data, f"{dtype.order}{dtype.code}", count=1)[0].item()


# Only classes in C, which a pickle cannot change, and objects without state.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "frozenset"): frozenset,
    ("_codecs", "encode"): _Encode(),
    ("numpy", "dtype"): _MakeDtype(),
    ("numpy", "ndarray"): _INERT,
}
for _core in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED[_core, "scalar"] = _Scalar()
    _ALLOWED[_core, "_reconstruct"] = _INERT
# Only names are compared with these: no attribute of PyTorch is ever looked up.
_INERT_MODULES = ("torch", "torch._utils", "torch.storage", "torch.nn.parameter")


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler of dictionaries, lists, numbers and strings, with tensors as stubs."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed class without any import, or raise InputError."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module in _INERT_MODULES:
            return _INERT
        raise InputError(
            f"its pickle asks for {module}.{name}, which a table of accuracies does "
            "not need; it was not run. Fetch the file from the benchmark's authors"
        )

    def persistent_load(self, _: Any) -> Any:
        """Return a placeholder for a tensor's storage, which is elsewhere."""
        return _INERT


def unpickle(path: str, file: BinaryIO) -> Any:
    """Unpickle the next object of a stream as plain data.

    Nothing in the file can run code. A malicious file can still waste memory, as in any
    container format.

    Args:
      path: path of the file, for error messages.
      file: binary file, positioned at the start of the pickle.

    Raises:
      InputError: if the pickle is truncated, damaged, or requests anything but plain
        data; the message names what it requested.
    """
    try:
        return _PlainUnpickler(file).load()
    except InputError as error:
        raise InputError(f"table {path} was refused: {error}") from error
    # A damaged pickle can raise any exception.
    except Exception as error:
        raise InputError(
            f"table {path} cannot be unpickled ({type(error).__name__}: {error}); it "
            "is cut off or damaged, fetch it anew"
        ) from error
