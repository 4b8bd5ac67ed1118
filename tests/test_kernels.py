"""Kernels that are copies of a process that has imported Keras."""

import json
import sys
import time
from pathlib import Path

import psutil
import pytest
from new_process import in_a_new_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are started")
TOOLS = Path(__file__).resolve().parent.parent / "tools"

# What a kernel says of itself, one after the other, in the process that starts them.
START = f"""
import json, os, sys
sys.path.insert(0, {str(TOOLS)!r})
import kernels
from jupyter_client.manager import start_new_kernel

kernels.preload()

def ask(client, code):
    said = []
    client.execute_interactive(code, output_hook=lambda m: said.append(m["content"].get("text")))
    return "".join(text for text in said if text)
"""


def test_a_kernel_has_imported_keras_and_is_itself(tmp_path: Path) -> None:
    code = """
code = (
    "import sys; known = 'tensorflow' in sys.modules; import json, os, threading, matplotlib;"
    "print(json.dumps([os.getpid(), known, os.getcwd(), os.environ['COLOUR'],"
    " os.getpgid(0) == os.getpid(), matplotlib.get_backend()]))"
)
said = []
for colour in ("red", "blue"):
    environment = {**os.environ, "COLOUR": colour}
    manager, client = start_new_kernel(cwd=os.environ["THERE"], env=environment)
    said.append(json.loads(ask(client, code)))
    client.stop_channels()
    manager.shutdown_kernel()
    assert not manager.is_alive()
print(json.dumps(said))
"""
    first, second = json.loads(in_a_new_process(START + code, THERE=str(tmp_path)))
    assert first[0] != second[0]
    inline = "module://matplotlib_inline.backend_inline"
    assert first[1:] == [True, str(tmp_path), "red", True, inline]
    assert second[3] == "blue"


def test_a_kernel_trains_as_one_that_was_started() -> None:
    code = """
import os
code = '''
import keras, numpy as np
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
model.compile("adam", "mse")
x = np.random.rand(40, 3).astype("float32")
model.fit(x, x.sum(axis=1), epochs=2, verbose=0)
print(float(model.evaluate(x, x.sum(axis=1), verbose=0)))
print(os.environ.get("TF_NUM_INTRAOP_THREADS"), sys.path)
'''
for start in ("import os, sys\\n", "import os, sys, trainwell.training\\n"):
    manager, client = start_new_kernel()
    print(ask(client, start + code))
    client.stop_channels()
    manager.shutdown_kernel()
    from jupyter_client.launcher import launch_kernel
    kernels.local_provisioner.launch_kernel = launch_kernel  # the second is started
"""
    copied, started = in_a_new_process(START + code).split("\n\n")
    assert copied == started


def test_a_kernel_that_dies_is_noticed_and_none_outlives_its_starter() -> None:
    code = """
manager, client = start_new_kernel()
client.execute("import os; os._exit(3)")
while manager.is_alive():
    pass
manager, client = start_new_kernel()
print(json.dumps([manager.provisioner.pid, kernels.original().pid]), flush=True)
os._exit(0)
"""
    left = json.loads(in_a_new_process(START + code))
    deadline = time.monotonic() + 60
    while any(map(psutil.pid_exists, left)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, left))
