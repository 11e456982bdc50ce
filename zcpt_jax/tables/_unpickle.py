"""Plain data out of pickles from the web, of which nothing is executed."""

import collections
import pickle
from typing import Any, BinaryIO

import numpy as np

from zcpt_jax.types import InputError


class _Inert:
    """Stands for what is not needed, such as a tensor; whatever is done to it."""

    __slots__ = ()

    def __call__(self, *_: object) -> "_Inert":
        return self

    def __setstate__(self, _: object) -> None:
        """A pickle may not change what later pickles see."""


_INERT = _Inert()


class _Encode(_Inert):
    """Bytes in pickles of protocol 2: characters of their values."""

    __slots__ = ()

    def __call__(self, *args: object) -> Any:
        text, encoding = args
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError("bytes are not written as NumPy or PyTorch write them")
        return text.encode("latin1")


class _Dtype:
    """The type of a NumPy number, read from the pickle and not by NumPy."""

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
    """A NumPy number as a Python one."""

    __slots__ = ()

    def __call__(self, *args: object) -> Any:
        dtype, data = args
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            return _INERT
        if dtype.code not in ("f2", "f4", "f8", "i4", "i8"):
            return _INERT
        return np.frombuffer(data, f"{dtype.order}{dtype.code}", count=1)[0].item()


# Classes in C, which a pickle cannot change, or objects without any state.
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
# Of these only the names are taken: no attribute of PyTorch is ever looked up.
_INERT_MODULES = ("torch", "torch._utils", "torch.storage", "torch.nn.parameter")


class _PlainUnpickler(pickle.Unpickler):
    """Builds dictionaries, lists, numbers and strings, and stubs for tensors."""

    def find_class(self, module: str, name: str) -> Any:
        """Looks up nothing: gives what is allowed, refuses the rest."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module in _INERT_MODULES:
            return _INERT
        raise InputError(
            f"its pickle asks for {module}.{name}, which a table of accuracies does "
            "not need; it was not run. Fetch the file from the benchmark's authors"
        )

    def persistent_load(self, _: Any) -> Any:
        """Storages of tensors, which lie elsewhere in the file."""
        return _INERT


def unpickle(path: str, file: BinaryIO) -> Any:
    """The next object of a stream of pickles, as plain data.

    Nothing in the file can run code. A file made to harm can still waste memory, as
    any container format can.

    Args:
      path: the file, for messages.
      file: opened in binary, where the pickle starts.

    Raises:
      InputError: if the pickle is cut off, damaged, or asks for anything but plain
        data; the message names what it asked for.
    """
    try:
        return _PlainUnpickler(file).load()
    except InputError as error:
        raise InputError(f"table {path} was refused: {error}") from error
    # The operations of a damaged pickle fail in every way that Python knows.
    except Exception as error:
        raise InputError(
            f"table {path} cannot be unpickled ({type(error).__name__}: {error}); it "
            "is cut off or damaged, fetch it anew"
        ) from error
