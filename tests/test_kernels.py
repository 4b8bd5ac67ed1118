"""Kernels that are copies of a process that has imported Keras."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import kernels
import psutil
import pytest
from new_process import in_a_new_process

from trainwell.datasets.manifest import manifest
from trainwell.datasets.places import first_good

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are started")
TOOLS = Path(__file__).resolve().parent.parent / "tools"

START = f"""
import json, os, sys, time
sys.path.insert(0, {str(TOOLS)!r})
import kernels
from jupyter_client.launcher import launch_kernel
from jupyter_client.manager import start_new_kernel

kernels.preload()
"""

ASK = """
def ask(code, colour):
    '''What a new kernel prints when it runs this code.'''
    said = []
    environment = {**os.environ, "COLOUR": colour}
    manager, client = start_new_kernel(cwd=os.environ["THERE"], env=environment)
    client.execute_interactive(
        code, output_hook=lambda message: said.append(message["content"].get("text") or "")
    )
    client.stop_channels()
    manager.shutdown_kernel()
    assert not manager.is_alive()
    return json.loads("".join(said))

ITSELF = '''
import sys
known = "tensorflow" in sys.modules
import json, os, matplotlib
leads = os.getpgid(0) == os.getpid()
print(json.dumps([known, os.getcwd(), os.environ["COLOUR"], leads, matplotlib.get_backend()]))
'''

READ = '''
import json
from trainwell.datasets import content
from trainwell.runtime import keep_kernels
read = sorted(path.name for path, *_ in content._read)
print(json.dumps([read, keep_kernels.cache_info().currsize]))
'''

TRAIN = '''
import json, os, sys
import trainwell.training
import keras, numpy as np
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
model.compile("adam", "mse")
x = np.random.rand(40, 3).astype("float32")
model.fit(x, x.sum(axis=1), epochs=2, verbose=0)
loss = float(model.evaluate(x, x.sum(axis=1), verbose=0))
print(json.dumps([loss, os.environ.get("TF_NUM_INTRAOP_THREADS"), sys.path]))
'''

WORK = '''
import json
from trainwell.experiments import run

def look(seed):
    import os, resource
    from pathlib import Path
    maker = Path(f"/proc/{os.getppid()}/cmdline").read_text()
    len(b"x" * 40_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    len(b"x" * 40_000_000)
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    threads = os.environ["TF_NUM_INTEROP_THREADS"]
    return {"copied": "kernels.py" in maker, "threads": threads, "pages": pages}

print(json.dumps(run(look, {"seed": [0, 1]}, jobs=2, keep=False).to_dict("list")))
'''

said = {"red": ask(ITSELF, "red"), "blue": ask(ITSELF, "blue")}
said["read"] = ask(READ, "red")
said |= {"train": ask(TRAIN, "red"), "work": ask(WORK, "red")}
manager, client = start_new_kernel()
client.shutdown()
# Nobody kills it here. With ten seconds, one that ends by itself was too late on a busy machine.
deadline = time.monotonic() + 60
while manager.is_alive() and time.monotonic() < deadline:
    time.sleep(0.1)
said["ended when asked"] = not manager.is_alive()
manager, client = start_new_kernel()
client.execute("import os; os._exit(3)")
while manager.is_alive():
    pass
kernels.original().kill()
try:
    start_new_kernel()
except RuntimeError as error:
    said["error"] = str(error)
kernels.original.cache_clear()
manager, client = start_new_kernel()
said["left"] = [manager.provisioner.pid, kernels.original().pid]
kernels.local_provisioner.launch_kernel = launch_kernel
said["started"] = ask(TRAIN, "red")
print(json.dumps(said), flush=True)
os._exit(0)  # as one that is killed
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What kernels say of themselves: four copies, and one that was started as usual."""
    there = tmp_path_factory.mktemp("there")
    answers = in_a_new_process(START + ASK, THERE=str(there), TRAINWELL_PROGRESS="0")
    return {"there": str(there), **json.loads(answers)}


def test_a_kernel_has_imported_keras_and_is_itself(said: dict[str, Any]) -> None:
    inline = "module://matplotlib_inline.backend_inline"
    assert said["red"] == [True, said["there"], "red", True, inline]
    assert said["blue"] == [True, said["there"], "blue", True, inline]


def test_the_data_that_many_pages_load_are_there_and_kernels_are_kept(said: dict[str, Any]) -> None:
    found = [first_good(manifest()[data_set]) for data_set in kernels.READ_ONCE]
    assert said["read"] == [sorted(name for good in found if good for name in good[0]), 1]


def test_it_trains_as_one_that_was_started(said: dict[str, Any]) -> None:
    assert said["train"] == said["started"]


def test_its_workers_are_copies_too_with_their_own_threads(said: dict[str, Any]) -> None:
    assert said["work"]["copied"] == [True, True]
    assert said["work"]["threads"] == ["1", "1"]


def test_they_keep_the_memory_that_they_free(said: dict[str, Any]) -> None:
    """Else Linux would clear the 40 MB of the second object again, page by page: 9,765."""
    assert max(said["work"]["pages"]) < 1_000


def test_a_kernel_ends_when_it_is_asked_to(said: dict[str, Any]) -> None:
    """Its manager would wait for some seconds, and then kill it."""
    assert said["ended when asked"]


def test_a_kernel_that_dies_is_noticed_and_none_outlives_its_starter(said: dict[str, Any]) -> None:
    deadline = time.monotonic() + 60
    while any(map(psutil.pid_exists, said["left"])) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, said["left"]))


def test_an_original_that_has_died_is_told(said: dict[str, Any]) -> None:
    assert "has ended; to see why" in said["error"]
