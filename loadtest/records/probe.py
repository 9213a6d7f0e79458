"""What readings are taken of: a server's process tree, the clients, the machine and its GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psutil


class Gpus:
    """Every GPU that the NVIDIA driver shows, read by NVML; none where there is no driver."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._devices: list[Any] = []
        try:
            import pynvml
        except ImportError:
            return  # nvidia-ml-py is not installed: no reading is possible
        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            for index in range(pynvml.nvmlDeviceGetCount()):
                device = pynvml.nvmlDeviceGetHandleByIndex(index)
                name = pynvml.nvmlDeviceGetName(device)
                total_bytes = pynvml.nvmlDeviceGetMemoryInfo(device).total
                self._devices.append(device)
                self.names.append(f"{name} ({total_bytes / 2**30:.0f} GiB)")
        except pynvml.NVMLError:
            self._devices, self.names = [], []  # no driver, or no permission to ask it

    def utilisation_percents(self) -> list[float]:
        """Of each GPU: the share of NVML's last sampling period in which a kernel ran."""
        return [
            float(self._nvml.nvmlDeviceGetUtilizationRates(device).gpu) for device in self._devices
        ]

    def memory_bytes(self) -> list[int]:
        """Of each GPU: memory in use by all processes."""
        return [int(self._nvml.nvmlDeviceGetMemoryInfo(device).used) for device in self._devices]


class Probe:
    """The processes of a measurement, and this machine.

    Args:
        server_pid: root of the server's process tree, or None where it cannot be seen from here.
        client_pids: the client processes; None where some run on other machines.
        gpus: the GPUs to read; None for none.
    """

    def __init__(
        self,
        server_pid: int | None,
        client_pids: Sequence[int] | None = (),
        gpus: Gpus | None = None,
    ) -> None:
        self._server = None if server_pid is None else psutil.Process(server_pid)
        self._tree: list[psutil.Process] | None = None
        self.clients = None if client_pids is None else [*map(psutil.Process, client_pids)]
        self.own = psutil.Process()
        self.gpus = gpus or _NoGpus()

    def look(self) -> None:
        """Find out which processes the server has now, and what the machine has done."""
        self._machine = psutil.cpu_times()
        self._tree = None
        if self._server is not None:
            try:
                self._tree = [self._server, *self._server.children(recursive=True)]
            except psutil.NoSuchProcess:
                return

    def of_server(self, read: Callable[[psutil.Process], float]) -> float | None:
        """The sum of a reading over the server's processes; None where it cannot be seen."""
        if self._tree is None:
            return None
        try:
            return sum(map(read, self._tree))
        except psutil.Error:
            return None

    def machine_busy_s(self) -> float:
        """CPU time of all processes, of which Linux counts guests' time as user time.

        Interrupts belong to no process: most carry the load's own packets over the loopback device.
        """
        return float(self._machine.user + self._machine.nice + self._machine.system)

    def machine_steal_s(self) -> float:
        """CPU time that its host took from this virtual machine."""
        return float(self._machine.steal)


class _NoGpus(Gpus):
    def __init__(self) -> None:
        self.names, self._devices = [], []


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children that have ended; 0 once it is gone itself."""
    try:
        times = process.cpu_times()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def tree_cpu_s(pid: int) -> float:
    """The same of a process and of all that it has started and that runs."""
    root = psutil.Process(pid)
    return sum(map(cpu_s, [root, *root.children(recursive=True)]))


def rss_bytes(process: psutil.Process) -> int:
    """Resident memory of a process; 0 once it is gone."""
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0
