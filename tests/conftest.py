"""What several files of tests share: a real Chromium."""

import os
import shutil
from collections.abc import Iterator

import pytest
from jupyter_client.provisioning import local_provisioner
from playwright.sync_api import Browser, sync_playwright

NAMES = ["chromium-headless-shell", "chromium", "chromium-browser"]
NAMES += ["google-chrome", "google-chrome-stable"]
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-dev-shm-usage"]  # in a container, shared memory may be too small for a page


@pytest.fixture(scope="module")
def copied_kernels() -> Iterator[None]:
    """Let kernels be copies of a process that has imported Keras, as in the build of the book."""
    import kernels

    with pytest.MonkeyPatch.context() as until_then:
        as_usual = local_provisioner.launch_kernel
        until_then.setattr(local_provisioner, "launch_kernel", as_usual)
        kernels.preload()
        yield
    if kernels.original.cache_info().currsize:
        kernels.original().communicate()  # it ends with its input
        kernels.original.cache_clear()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser without windows; tests that need it are skipped where there is none."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
