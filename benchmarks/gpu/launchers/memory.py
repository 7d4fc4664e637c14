"""Arrays of the launchers: in plain memory, or in that of a CUDA runtime, emulated or real.

Without a runtime (csrc/simt) the kernels run in the process and arrays are passed as they are. An emulator puts its
runtime into the process; a real one is loaded from its file by `use_runtime`.
"""

import ctypes

import numpy as np

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # cudaMemcpyKind
SHARED_OF_MULTIPROCESSOR = 81  # cudaDevAttrMaxSharedMemoryPerMultiprocessor


class DeviceLost(RuntimeError):
    """A call of the CUDA runtime failed: no later call of this process will work."""


class NoDevice(RuntimeError):
    """The CUDA runtime has no device."""


process = ctypes.CDLL(None)
runtime = process if hasattr(process, "cudaMalloc") else None


def use_runtime(path: str) -> None:
    """Load a CUDA runtime; the library of the launchers, loaded later, is bound to it."""
    global runtime
    runtime = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    count = ctypes.c_int()
    if error := runtime.cudaGetDeviceCount(ctypes.byref(count)):
        raise NoDevice(error_text(error))
    if count.value == 0:
        raise NoDevice("no CUDA device")


def error_text(error: int) -> str:
    assert runtime is not None
    runtime.cudaGetErrorString.restype = ctypes.c_char_p
    return f"{(runtime.cudaGetErrorString(error) or b'unknown error').decode()} ({error})"


def ask(function: str, *arguments: object) -> None:
    """Call the CUDA runtime."""
    assert runtime is not None
    if error := getattr(runtime, function)(*arguments):
        raise DeviceLost(f"{function}: {error_text(error)}")


def wait(what: str) -> None:
    """Wait for the device; what went wrong in a kernel, such as an access out of bounds, is raised here."""
    if runtime is not None and (error := runtime.cudaDeviceSynchronize()):
        raise DeviceLost(f"{what}: {error_text(error)}")


def shared_memory() -> int:
    """Bytes of shared memory of a multiprocessor; without a runtime as many as any case assumes."""
    if runtime is None:
        return 1 << 20
    value = ctypes.c_int()
    ask("cudaDeviceGetAttribute", ctypes.byref(value), SHARED_OF_MULTIPROCESSOR, 0)
    return value.value


class Memory:
    """Device arrays of one call."""

    poison = True  # fill new arrays with NaN; not where a tool looks for reads of memory that nobody wrote

    def __init__(self) -> None:
        self.arrays: list[tuple[np.ndarray, int]] = []
        self.allocated: list[ctypes.c_void_p] = []

    def __del__(self) -> None:
        for start in self.allocated:
            process.free(start) if runtime is None else runtime.cudaFree(start)

    def allocate(self, size: int) -> int:
        """Return the address of exactly `size` bytes, so that a sanitizer sees accesses beyond them."""
        start = ctypes.c_void_p()
        if runtime is None:
            process.posix_memalign(ctypes.byref(start), ctypes.c_size_t(256), ctypes.c_size_t(size))
        else:
            ask("cudaMalloc", ctypes.byref(start), ctypes.c_size_t(max(size, 1)))
        self.allocated.append(start)
        return start.value or 0

    def put(self, array: np.ndarray, shift: int = 0) -> int:
        """Copy an array to the device, `shift` bytes after an aligned address."""
        array = np.ascontiguousarray(array)
        pointer = self.allocate(array.nbytes + shift) + shift
        if runtime is None:
            view = np.frombuffer((ctypes.c_char * array.nbytes).from_address(pointer), array.dtype).reshape(array.shape)
            view[...] = array
            array = view
        else:
            source = ctypes.c_void_p(array.ctypes.data)
            ask("cudaMemcpy", ctypes.c_void_p(pointer), source, ctypes.c_size_t(array.nbytes), HOST_TO_DEVICE)
        self.arrays.append((array, pointer))
        return pointer

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, shift: int = 0) -> int:
        """Make an array full of NaN, or one that nobody wrote."""
        array = np.empty(shape, dtype)
        if runtime is not None and not self.poison:
            pointer = self.allocate(array.nbytes + shift) + shift
            self.arrays.append((array, pointer))
            return pointer
        array.view(np.uint8)[...] = 0xFF
        return self.put(array, shift)

    def get(self, pointer: int) -> np.ndarray:
        """Return the array at an address that put or empty gave."""
        array = next(a for a, p in self.arrays if p == pointer)
        if runtime is None:
            return array
        result = np.empty_like(array)
        target = ctypes.c_void_p(result.ctypes.data)
        ask("cudaMemcpy", target, ctypes.c_void_p(pointer), ctypes.c_size_t(array.nbytes), DEVICE_TO_HOST)
        return result
