"""Workspace of Terraform: a copy of the module with its own state, run with the provider's folder where there is one."""

import json
import os
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULE = Path(__file__).resolve().parents[1]
PROVIDER = "registry.terraform.io/hashicorp/aws/5.100.0"
PLUGINS = "TAXI_TF_PLUGINS"
PLAN = "plan.bin"
ROOTS = ("/opt/*", "/usr/local/share/terraform/*", "/usr/share/terraform/*")


def find_plugins() -> Path | None:
    """Return the folder for ``terraform init -plugin-dir``: TAXI_TF_PLUGINS, or one in a usual place; None lets init download."""
    if named := os.environ.get(PLUGINS):
        if not (Path(named) / PROVIDER).is_dir():
            raise SystemExit(f"expected {PROVIDER} in the folder that {PLUGINS} names; got {named}")
        return Path(named)
    usual = (folder for root in ROOTS for folder in Path("/").glob(root.lstrip("/")))
    return next((folder for folder in usual if (folder / PROVIDER).is_dir()), None)


def copy_module(to: Path) -> Path:
    """Copy the module, so that its state lies in the folder; S3 is its backend no more."""
    to.mkdir(parents=True)
    for path in [*sorted(MODULE.glob("*.tf")), MODULE / ".terraform.lock.hcl"]:
        shutil.copy(path, to)
    for folder in ("environments", "tests"):
        shutil.copytree(MODULE / folder, to / folder)
    (to / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n', encoding="utf-8")
    return to


@dataclass(frozen=True)
class Terraform:
    """Terraform in a folder; its answers are read as JSON where it gives them."""

    folder: Path
    environment: dict[str, str]

    def call(self, *arguments: str, allowed: Collection[int] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run a command; raise SystemExit with what it said where it ends with another code than those allowed."""
        quiet = {"TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "NO_COLOR": "1"}
        done = subprocess.run(
            ["terraform", *arguments], cwd=self.folder, env=os.environ | quiet | self.environment, capture_output=True, text=True
        )  # fmt: skip
        if done.returncode not in allowed:
            raise SystemExit(
                f"terraform {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done

    def init(self, *arguments: str) -> None:
        """Install the provider: from the machine's folder, or by download."""
        plugins = find_plugins()
        given = [f"-plugin-dir={plugins}"] if plugins else []
        self.call("init", "-input=false", "-no-color", *given, *arguments)

    def plan(self, *arguments: str) -> dict[str, Any]:
        """Return a plan as ``terraform show -json`` gives it."""
        self.call("plan", "-input=false", f"-out={PLAN}", "-detailed-exitcode", *arguments, allowed=(0, 2))
        return json.loads(self.call("show", "-json", PLAN).stdout)

    def outputs(self) -> dict[str, Any]:
        """Return the outputs' values by name."""
        return {name: one["value"] for name, one in json.loads(self.call("output", "-json").stdout).items()}
