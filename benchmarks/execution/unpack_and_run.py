"""Unpack this file into the folder of the call and carry out its command: `python PACK.zip [more options]`.

The `__main__.py` of a pack, standard library alone. What the machine has itself is preferred to a carried package. A
second call goes on in the folder of the first.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ORDER, ORIGIN = "pack.json", "origin.json"
CODE, DATA, PACKAGES = "code", "data", "packages"
_WRONG = 2


def main() -> int:
    """Unpack and run; returns the exit code of the command, 2 where another pack is in the way."""
    archive = Path(sys.argv[0]).resolve()
    folder = Path.cwd() / archive.stem
    with zipfile.ZipFile(archive) as pack:
        order = json.loads(pack.read(ORDER))
        if not _there(folder, order):
            print(f"{folder} holds something else; move it away, or call from another folder", file=sys.stderr)
            return _WRONG
        if not (folder / ORDER).exists():
            print(f"unpacking to {folder}", flush=True)
            _unpack(pack, folder, order)
    if absent := _absent(order["needed"]):
        print(f"not on this machine, and not to be carried: {', '.join(absent)}", flush=True)
    words = [*order["words"], *sys.argv[1:]]
    if "--pack" not in words:
        words += ["--pack", str(Path.cwd() / f"{archive.stem}-records.zip")]
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, env=_environment(folder), check=False).returncode


def _there(folder: Path, order: dict[str, Any]) -> bool:
    """Return False if the folder holds what is not of this pack; half unpacked, it is unpacked again."""
    mark = folder / ORDER
    if mark.exists():
        return bool(json.loads(mark.read_text(encoding="utf-8"))["digest"] == order["digest"])
    return not folder.exists() or {path.name for path in folder.iterdir()} <= {CODE, DATA, PACKAGES}


def _unpack(pack: zipfile.ZipFile, folder: Path, order: dict[str, Any]) -> None:
    """Extract code, data and the packages that this machine lacks; the mark of completeness is written last."""
    lacking = {name for name, modules in order["packages"].items() if _absent(modules)}
    for name in pack.namelist():
        top, _, inside = name.partition("/")
        if top in (CODE, DATA):
            pack.extract(name, folder)
        elif top == PACKAGES and inside.partition("/")[0] in lacking:
            target = folder / PACKAGES / inside.partition("/")[2]
            target.parent.mkdir(parents=True, exist_ok=True)
            with pack.open(name) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
    (folder / CODE / ORIGIN).write_text(json.dumps(order["origin"]), encoding="utf-8")
    (folder / ORDER).write_text(json.dumps(order), encoding="utf-8")


def _absent(modules: Iterable[str]) -> list[str]:
    """Those of the modules that cannot be imported here."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def _environment(folder: Path) -> dict[str, str]:
    """Variables of the command: its own code and packages, its own data, and nothing that asks for a network."""
    paths = [str(folder / CODE), str(folder / PACKAGES), os.environ.get("PYTHONPATH", "")]
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONSAFEPATH": "1",  # a checkout that it is called from is not what was packed
        "ECOSPA_DATA": str(folder / DATA),
        "HF_HOME": str(folder / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }
    return {**os.environ, **own}


if __name__ == "__main__":
    sys.exit(main())
