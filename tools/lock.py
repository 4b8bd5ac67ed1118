"""Write requirements.lock: `make relock`.

One list pins every environment. The lines that only a GPU needs carry the marker
`extra == 'gpu'`, which installers skip; `make GPU=1` installs a copy without that marker.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = """\
# The one pin list: made by `make relock` from pyproject.toml, for every platform.
# It names no index: your own pip or uv settings say where packages come from.
"""


def compile_pins(*extras: str) -> dict[str, str]:
    """Return {"name==version ; marker": its hash lines} for the given extras."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    command += ["--no-emit-index-url", "--no-emit-find-links"]
    for extra in extras:
        command += ["--extra", extra]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    pins = re.findall(r"^(\S.*?) \\\n((?:    --hash.*\n?)+)", text, flags=re.MULTILINE)
    return {requirement: hashes.rstrip() for requirement, hashes in pins}


def mark_gpu(requirement: str) -> str:
    name, _, marker = requirement.partition(" ; ")
    return f"{name} ; ({marker}) and extra == 'gpu'" if marker else f"{name} ; extra == 'gpu'"


def main() -> None:
    everywhere = compile_pins("dev", "instructor", "jax")
    with_gpu = compile_pins("dev", "instructor", "jax", "gpu")
    if missing := everywhere.keys() - with_gpu.keys():
        sys.exit(f"the gpu extra changes pins that everyone uses: {sorted(missing)}")
    lines = [f"{requirement} \\\n{hashes}" for requirement, hashes in everywhere.items()]
    lines += [
        f"{mark_gpu(requirement)} \\\n{hashes}"
        for requirement, hashes in with_gpu.items()
        if requirement not in everywhere
    ]
    LOCK.write_text(HEADER + "\n".join(lines) + "\n")
    print(f"{LOCK.name}: {len(lines)} pins, {len(lines) - len(everywhere)} of them for GPUs only")


if __name__ == "__main__":
    main()
