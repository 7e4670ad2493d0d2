"""Hostile bundles and weights, one builder a kind: each tries to run, write, read or take something it should not.

Every builder gets an empty folder and the path of a canary, a file that must not come into being, and leaves a bundle's
folder, an archive or a weights file. ``KINDS`` says for each what must be said of it.
"""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

Builder = Callable[[Path, Path], Path]


@dataclass(frozen=True)
class Kind:
    """One way to be hostile: the builder, what a refusal must say, and how stock software would open it."""

    build: Builder
    reason: str
    stock: str  # config | torch | zip | metadata | large_files | logging | numpy | safetensors | none


KINDS: dict[str, Kind] = {}
BOMB_MIB = 24  # unpacked; a thousandth of it packed
_SYSTEM = os.system


def kind(name: str, reason: str, stock: str) -> Callable[[Builder], Builder]:
    """Register a builder."""

    def register(build: Builder) -> Builder:
        KINDS[name] = Kind(build, reason, stock)
        return build

    return register


class Call:
    """Pickles to a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def bundle(folder: Path, config: str, name: str = "inference.yaml") -> Path:
    """A bundle with one configuration, which `initialize` and `run` make MONAI act on."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0", "name": "hostile"}))
    (folder / "configs" / name).write_text(config, encoding="utf-8")
    return folder


def in_config(name: str, text: str, reason: str, stock: str = "config", files: Mapping[str, str] | None = None) -> None:
    """Register a kind that is a configuration, with further files; CANARY stands for the canary's path."""

    @kind(name, reason, stock)
    def build(folder: Path, canary: Path) -> Path:
        for place, content in (files or {}).items():
            (folder / place).write_text(content.replace("CANARY", str(canary)))
        return bundle(folder, text.replace("CANARY", str(canary)))


# ---- configurations --------------------------------------------------------------------------------------------------
in_config("expression: __import__", "run: \"$__import__('pathlib').Path('CANARY').touch()\"\n", "calls")
in_config(
    "expression: eval", "run: \"$eval('__import__(\\\\'os\\\\').system(\\\\'touch CANARY\\\\')')\"\n", "calls eval"
)
in_config(
    "expression: subclasses",
    "run: \"$[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
    ".__init__.__globals__['system']('touch CANARY')\"\n",
    "attribute __class__|__subclasses__",
)
in_config(
    "expression: module found in a module",
    "run: \"$monai.utils.module.sys.modules['os'].system('touch CANARY')\"\n",
    "calls|names",
)
in_config(
    "expression: torch.hub",
    "run: \"$torch.hub.load('.', 'model', source='local')\"\n",
    "calls torch.hub.load",
    files={"hubconf.py": "def model():\n    open('CANARY', 'w')\n"},
)


@kind("expression: torch.load", "calls torch.load", "config")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "imports:\n  - $import torch\nrun: \"$torch.load('models/model.pt', weights_only=False)\"\n")
    torch.save({"x": _touch(canary)}, folder / "models" / "model.pt")
    return folder


in_config("expression: f-string", 'run: "$f\'{__import__(\\"os\\").system(\\"touch CANARY\\")}\'"\n', "JoinedStr")
in_config(
    "expression: lambda",
    "net: \"$(lambda: __import__('os').system('touch CANARY'))()\"\nrun: \"@net\"\n",
    "calls what an expression gave",
)
in_config(
    "expression: reference that breaks out of a string",
    "in: 1\nrun: \"$'@in' + str(open('CANARY', 'w'))\"\n",
    "calls open",
)
in_config(
    "expression: attribute of a reference",
    "t: \"$monai\"\nrun: \"$@t.utils.module.sys.modules['os'].system('touch CANARY')\"\n",
    "attribute|calls",
)
in_config(
    "expression: import under another name",
    "imports:\n  - $import os as torch\nrun: \"$torch.system('touch CANARY')\"\n",
    "imports",
)
in_config(
    "expression: import of a module",
    "imports:\n  - $import subprocess\nrun: \"$subprocess.call(['touch', 'CANARY'])\"\n",
    "imports subprocess",
)
in_config("expression: number without end", 'run: "$9**9**9"\n', "Pow")
in_config(
    "expression: shadowed module",
    "run: \"$[torch.system('touch CANARY') for torch in [__import__('os')]]\"\n",
    "binds a name|calls",
)
in_config("_target_: os.system", "run:\n  _target_: os.system\n  command: touch CANARY\n", "not on the list")
in_config("_target_: subprocess.run", "run:\n  _target_: subprocess.run\n  args: [touch, CANARY]\n", "not on the list")
in_config("_target_: builtins.open", "run:\n  _target_: builtins.open\n  file: CANARY\n  mode: w\n", "not on the list")
in_config("_target_: torch.save", 'x: [1]\nrun:\n  _target_: torch.save\n  obj: "@x"\n  f: CANARY\n', "not on the list")
in_config(
    "_target_: runpy",
    "run:\n  _target_: runpy.run_path\n  path_name: notes.txt\n",
    "not on the list",
    files={"notes.txt": "open('CANARY', 'w')\n"},
)
in_config(
    "_target_: monai.bundle.run",
    "run:\n  _target_: monai.bundle.scripts.run\n  config_file: other.json\n",
    "not on the list",
    files={"other.json": "{\"run\": \"$open('CANARY', 'w')\"}"},
)
in_config(
    "_target_: this package's own writer",
    "run:\n  _target_: monai_landmark.files.write_text\n  path: CANARY\n  text: x\n",
    "not on the list",
)
in_config(
    "_target_: an expression",
    "run:\n  _target_: \"$__import__('os').system\"\n  command: touch CANARY\n",
    "not on the list",
)
in_config(
    "_target_: a macro", 'name: os.system\nrun:\n  _target_: "%name"\n  command: touch CANARY\n', "not on the list"
)
in_config(
    "_mode_: callable",
    "run:\n  _target_: Compose\n  _mode_: callable\n  transforms: []\n",
    "another way than by default",
)
in_config(
    "_target_: put in by a key",
    "run:\n  command: touch CANARY\nrun::_target_: os.system\n",
    "MONAI may read in another way",
)
in_config(
    "_mode_: debug, merged in",
    "run:\n  _target_: Compose\n  transforms: []\n+run:\n  _mode_: debug\n",
    "another way than by default",
)
in_config("_debug_", "run:\n  _target_: Compose\n  _debug_: true\n", "MONAI may read in another way")
in_config(
    "_requires_", "run:\n  _target_: Compose\n  _requires_: \"$__import__('os').system('touch CANARY')\"\n", "calls"
)
in_config(
    "_disabled_", "run:\n  _target_: Compose\n  _disabled_: \"$__import__('os').system('touch CANARY')\"\n", "calls"
)
in_config(
    "key that becomes code",
    "\"a + str(open('CANARY', 'w'))\":\n  x: 1\n  y: \"$@#x\"\nrun: 1\n",
    "MONAI may read in another way",
)
in_config(
    "macro from another file",
    "run: '%other.json::x'\n",
    "takes in another file",
    files={"other.json": "{\"x\": \"$open('CANARY', 'w')\"}"},
)
in_config(
    "macros that grow",
    "a: [1, 1]\n" + "".join(f"b{n}: ['%b{n - 1}', '%b{n - 1}']\n" for n in range(1, 40)) + "b0: '%a'\nrun: 1\n",
    "macro",
)
in_config("YAML tag", "run: !!python/object/apply:os.system ['touch CANARY']\n", "tag")
in_config(
    "YAML aliases without end",
    "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 24)) + "run: 1\n",
    "anchor or alias",
)
in_config("YAML key twice", "run: 1\nrun: \"$__import__('os').system('touch CANARY')\"\n", "repeats the key")
in_config("nested deep", "run: " + "[" * 400 + "]" * 400 + "\n", "nested deeper")
in_config("path: absolute", "output_dir: /etc/cron.d\nrun: 1\n", "absolute path", "none")
in_config(
    "path: out of the bundle", "output_dir: models/../../../elsewhere\nrun: 1\n", "leads out of its folder", "none"
)
in_config(
    "path: put together",
    "d: .\noutput_dir: \"$@d + @d + '/elsewhere'\"\nrun: 1\n",
    "begins with a dot|leads out",
    "none",
)
in_config("path: home folder", "output_dir: ~/.ssh\nrun: 1\n", "home folder", "none")
in_config("address", "weights: https://example.org/model.pt\nrun: 1\n", "address", "none")


@kind("not UTF-8", "not UTF-8", "none")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run: 1\n")
    (folder / "configs" / "inference.yaml").write_bytes(b"run: caf\xe9\n")
    return folder


@kind("oversized configuration", "too large", "config")
def _(folder: Path, canary: Path) -> Path:
    return bundle(folder, "run: 1\n" + "# " + "x" * (2 << 20) + "\n")


@kind("metadata: shape that is a program", "shape that is a program", "metadata")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "network_def:\n  _target_: torch.nn.Identity\nrun: 1\n")
    shape = [f"__import__('pathlib').Path('{canary}').touch() or 8", 8]
    image = {"type": "image", "num_channels": 1, "spatial_shape": shape, "dtype": "float32", "value_range": [0, 1]}
    facts = {"network_data_format": {"inputs": {"image": image}, "outputs": {"pred": image}}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(facts))
    return folder


@kind("metadata: expression", "expression in a file of facts", "config")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, 'run: "@_meta_::name"\n')
    (folder / "configs" / "metadata.json").write_text(
        json.dumps({"name": f"$__import__('pathlib').Path('{canary}').touch()"})
    )
    return folder


@kind("large files: path out of the bundle, plain http, no hash", "leads out of its folder", "large_files")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run: 1\n")
    entry = {"path": f"../{canary.name}", "url": "http://127.0.0.1:9/model.pt"}
    (folder / "large_files.json").write_text(json.dumps({"large_files": [entry]}))
    return folder


@kind("log format that is evaluated", "log setting", "logging")
def _(folder: Path, canary: Path) -> Path:
    return _log(bundle(folder, "run: 1\n"), "StreamHandler", f"(open('{canary}', 'w'),)")


@kind("log format that writes a file", "log setting", "logging")
def _(folder: Path, canary: Path) -> Path:
    return _log(bundle(folder, "run: 1\n"), "FileHandler", f"('{canary}', 'w')")


def _log(folder: Path, handler: str, arguments: str) -> Path:
    text = "[loggers]\nkeys=root\n[handlers]\nkeys=h\n[formatters]\nkeys=f\n[logger_root]\nlevel=INFO\nhandlers=h\n"
    text += f"[handler_h]\nclass={handler}\nformatter=f\nargs={arguments}\n[formatter_f]\nformat=%(message)s\n"
    (folder / "configs" / "logging.conf").write_text(text)
    return folder


# ---- files in a bundle -----------------------------------------------------------------------------------------------
@kind("code that a configuration imports", "is code", "config")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run:\n  _target_: scripts.evil.main\n")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "evil.py").write_text(f"open({str(canary)!r}, 'w')\ndef main(): pass\n")
    return folder


@kind("link out of the bundle", "link that leads out", "none")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run: 1\n")
    (folder / "models" / "model.json").symlink_to("/etc/hostname")
    return folder


@kind("link to a folder outside", "link that leads out", "none")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run: 1\n")
    (folder / "docs").symlink_to(canary.parent, target_is_directory=True)
    return folder


@kind("pipe", "device, a pipe", "none")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run: 1\n")
    os.mkfifo(folder / "models" / "model.safetensors")
    return folder


@kind("TorchScript", "TorchScript", "none")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run: 1\n")
    torch.jit.script(torch.nn.Identity()).save(str(folder / "models" / "model.ts"))
    return folder


@kind("TorchScript as model.pt", "TorchScript", "torch")
def _(folder: Path, canary: Path) -> Path:
    torch.jit.script(torch.nn.Identity()).save(str(folder / "model.pt"))
    return folder / "model.pt"


@kind("wrong hash", "is not the file whose hash is recorded", "none")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run: 1\n")
    (folder / "models" / "model.safetensors").write_bytes(save({"weight": torch.zeros(3)}))
    (folder / "models" / "model.json").write_text(json.dumps({"architecture": "x", "sha256": "0" * 64}))
    return folder


@kind("hash list that leads out", "no hash of a file", "none")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run: 1\n")
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  ../../etc/passwd\n")
    return folder


@kind("model card that builds more", "more than how it looks at a film", "none")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run: 1\n")
    card = {"architecture": "diffusion-tiny", "transfer": {"weights_file": "other.pt"}}
    (folder / "models" / "model.json").write_text(json.dumps(card))
    return folder


# ---- weights ---------------------------------------------------------------------------------------------------------
def _touch(canary: Path) -> Call:
    return Call(_SYSTEM, f"touch {canary}")


@kind("weights: a pickle that calls", "makes or calls more than tensors", "torch")
def _(folder: Path, canary: Path) -> Path:
    torch.save({"weight": torch.zeros(3), "x": _touch(canary)}, folder / "model.pt")
    return folder / "model.pt"


@kind("weights: a bare pickle", "without running it", "torch")
def _(folder: Path, canary: Path) -> Path:
    (folder / "model.pt").write_bytes(pickle.dumps({"weight": _touch(canary)}))
    return folder / "model.pt"


@kind("weights: the format before torch 1.6, with a call", "without running it", "torch")
def _(folder: Path, canary: Path) -> Path:
    torch.save({"x": _touch(canary)}, folder / "model.pt", _use_new_zipfile_serialization=False)
    return folder / "model.pt"


@kind("weights: a whole module", "makes or calls more than tensors", "torch")
def _(folder: Path, canary: Path) -> Path:
    torch.save(torch.nn.Linear(2, 2), folder / "model.pt")
    return folder / "model.pt"


@kind("weights: a call by code that names no global", "without running it", "torch")
def _(folder: Path, canary: Path) -> Path:
    program = (
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([6 + len(str(canary))]) + f"touch {canary}".encode()
    )
    return _torch_file(folder / "model.pt", program + b"\x85R.")


@kind("weights: packed, a bomb", "packed part", "torch")
def _(folder: Path, canary: Path) -> Path:
    plain = io.BytesIO()
    torch.save({"weight": torch.zeros(BOMB_MIB << 18)}, plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(folder / "model.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
    ):
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    return folder / "model.pt"


@kind("weights: more claimed than there is", "is no torch file", "torch")
def _(folder: Path, canary: Path) -> Path:
    plain = io.BytesIO()
    torch.save({"weight": torch.zeros(7)}, plain)
    with zipfile.ZipFile(plain) as source:
        program = next(source.read(name) for name in source.namelist() if name.endswith("data.pkl"))
    return _torch_file(folder / "model.pt", program.replace(b"K\x07", b"J" + struct.pack("<i", 2**30)), b"\0" * 28)


def _torch_file(path: Path, program: bytes, data: bytes = b"\0" * 4) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")
    return path


@kind("safetensors: header without end", "impossible header", "safetensors")
def _(folder: Path, canary: Path) -> Path:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    return folder / "model.safetensors"


@kind("safetensors: oversized shape", "claims more than it holds", "safetensors")
def _(folder: Path, canary: Path) -> Path:
    return _safetensors(folder, {"weight": {"dtype": "F32", "shape": [2**40, 4], "data_offsets": [0, 16]}}, 16)


@kind("safetensors: tensors that overlap", "claims more than it holds", "safetensors")
def _(folder: Path, canary: Path) -> Path:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    return _safetensors(folder, {"a": entry, "b": entry}, 16)


@kind("safetensors: a dimension beyond any film", "impossible tensor", "safetensors")
def _(folder: Path, canary: Path) -> Path:
    return _safetensors(folder, {"weight": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}, 0)


@kind("safetensors: a pickle in disguise", "impossible header|no safetensors", "safetensors")
def _(folder: Path, canary: Path) -> Path:
    (folder / "model.safetensors").write_bytes(pickle.dumps(_touch(canary)))
    return folder / "model.safetensors"


def _safetensors(folder: Path, header: dict[str, Any], length: int) -> Path:
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * length)
    return folder / "model.safetensors"


@kind("array of Python objects", "Python objects", "numpy")
def _(folder: Path, canary: Path) -> Path:
    np.save(folder / "x.npy", np.array([_touch(canary)], dtype=object), allow_pickle=True)
    return folder / "x.npy"


@kind("pickle in a bundle", "is a pickle", "none")
def _(folder: Path, canary: Path) -> Path:
    bundle(folder, "run: 1\n")
    (folder / "models" / "shapes.pkl").write_bytes(pickle.dumps(_touch(canary)))
    return folder


# ---- archives --------------------------------------------------------------------------------------------------------
def in_archive(name: str, reason: str, member: str, mode: int = 0, content: bytes = b"hostile") -> None:
    """Register a kind that is a zip with one bad member; CANARY stands for the canary's path."""

    @kind(name, reason, "zip")
    def build(folder: Path, canary: Path) -> Path:
        with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
            archive.writestr("bundle/configs/inference.yaml", "run: 1\n")
            named = member.replace("CANARY", str(canary)).replace("NAME", canary.name)
            info = zipfile.ZipInfo(named)
            info.external_attr = mode << 16
            archive.writestr(info, content.replace(b"FOLDER", str(canary.parent).encode()))
            if mode:
                archive.writestr(f"{named}/{canary.name}", b"hostile")
        return folder / "bundle.zip"


in_archive("zip: path out of the folder", "leads out of its folder", "../NAME")
in_archive("zip: absolute path", "absolute path", "CANARY")
in_archive("zip: backslashes", "leads out of its folder", "bundle\\..\\..\\NAME")
in_archive("zip: drive", "absolute path", "C:/NAME")
in_archive("zip: link, then a file through it", "link or a device", "bundle/docs", 0o120777, b"FOLDER")


@kind("zip: bomb", "a bomb", "zip")
def _(folder: Path, canary: Path) -> Path:
    with zipfile.ZipFile(folder / "bundle.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("bundle/configs/inference.yaml", "run: 1\n")
        with archive.open("bundle/docs/README.md", "w", force_zip64=True) as stream:
            for _ in range(BOMB_MIB):
                stream.write(b"\0" * (1 << 20))
    return folder / "bundle.zip"


@kind("zip: more files than any bundle", "too many files", "zip")
def _(folder: Path, canary: Path) -> Path:
    with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
        for number in range(2001):
            archive.writestr(f"bundle/docs/{number}.txt", "")
    return folder / "bundle.zip"


@kind("zip: a name twice", "names a file twice", "zip")
def _(folder: Path, canary: Path) -> Path:
    with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
        archive.writestr("bundle/configs/inference.yaml", "run: 1\n")
        archive.writestr("bundle/configs/INFERENCE.yaml", "run: 2\n")
    return folder / "bundle.zip"


@kind("zip: a hostile configuration inside", "calls", "none")
def _(folder: Path, canary: Path) -> Path:
    with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
        archive.writestr("bundle/configs/inference.yaml", "run: \"$__import__('os').getcwd()\"\n")
    return folder / "bundle.zip"


def harmless(folder: Path) -> Path:
    """A bundle with everything a bundle may have, in which nothing may be found."""
    bundle(folder, 'lr: 0.1\nsteps: 5\nrun: "$@lr * @steps"\n')
    weights = collections.OrderedDict(weight=torch.zeros(3, 4))
    (folder / "models" / "model.safetensors").write_bytes(save(dict(weights)))
    torch.save(weights, folder / "models" / "model.pt")
    np.save(folder / "models" / "mean.npy", np.zeros((2, 3)))
    (folder / "docs").mkdir()
    (folder / "docs" / "README.md").write_text("harmless\n")
    return folder
