"""Bundles and weights from elsewhere: what is hostile is refused with its reason, nothing runs, nothing is written."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import subprocess
from pathlib import Path
from pydoc import locate

import pytest
import torch
import torch.utils.tensorboard
from hostile import KINDS, bundle, harmless
from monai.bundle import ComponentLocator, ConfigParser
from monai.utils import instantiate
from safetensors.torch import load_file, save_file

from monai_landmark.apps.cli import main
from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.files import file_sha256
from monai_landmark.networks import TrainedWeights, read_state_dict
from monai_landmark.safety import open_config, verify
from monai_landmark.safety.allowed import CALLS, TARGETS, VALUES

BUNDLES = sorted(path for path in (Path(__file__).parents[2] / "bundles").iterdir() if path.is_dir())
CONFIGS = sorted(path for each in BUNDLES for path in each.glob("configs/*.yaml"))


@pytest.fixture
def no_program(monkeypatch):
    """A program or a connection that is started fails the test, wherever its error ends."""
    calls = []

    def note(*args, **options):
        calls.append((args, options))
        raise AssertionError(f"something ran: {args}")

    monkeypatch.setattr("os.system", note)
    monkeypatch.setattr(subprocess, "Popen", note)
    monkeypatch.setattr(socket, "create_connection", note)
    yield
    assert not calls


def everything_below(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): file_sha256(path) for path in found}


class TestHostile:
    @pytest.mark.parametrize("name", KINDS)
    def test_is_refused_with_its_reason_and_does_nothing(self, name, tmp_path, monkeypatch, no_program):
        folder, canary = tmp_path / "from_elsewhere", tmp_path / "canary"
        folder.mkdir()
        path = KINDS[name].build(folder, canary)
        before = everything_below(tmp_path)
        monkeypatch.chdir(tmp_path)
        found = verify(path)
        assert any(re.search(KINDS[name].reason, str(each)) for each in found.findings), found.findings
        assert all(each.file and each.action for each in found.findings)
        assert not canary.exists() and everything_below(tmp_path) == before

    def test_there_are_more_than_thirty(self):
        assert len(KINDS) >= 30

    @pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.stock in ("torch", "safetensors")])
    def test_weights_are_not_read_into_a_network_either(self, name, tmp_path, no_program):
        canary = tmp_path / "canary"
        with pytest.raises(WeightsError):
            read_state_dict(KINDS[name].build(tmp_path, canary))
        assert not canary.exists()

    @pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.stock == "config"])
    def test_configurations_are_not_opened_either(self, name, tmp_path, no_program):
        canary = tmp_path / "canary"
        path = KINDS[name].build(tmp_path, canary) / "configs" / "inference.yaml"
        if name == "metadata: expression":  # which open_config does not read
            return
        with pytest.raises(ConfigurationError, match=r"not opened: .*--trust [0-9a-f]{64}"):
            open_config(path)
        assert not canary.exists()

    def test_a_few_bytes_may_not_claim_a_huge_tensor(self, tmp_path):
        torch.save({"weight": torch.zeros(1).expand(2**20, 2**10)}, tmp_path / "model.pt")
        with pytest.raises(WeightsError, match="claims more values than it holds"):
            read_state_dict(tmp_path / "model.pt")


class TestClean:
    @pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
    def test_our_own_bundles_are(self, path):
        assert [str(each) for each in verify(path).findings] == []

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
    def test_our_own_configurations_are_opened_as_monai_reads_them(self, path):
        expected = ConfigParser()
        expected.read_config(path)
        expected.resolve_macro_and_relative_ids()
        if path.name != "multi_gpu.yaml":  # whose + waits for another file
            assert open_config(path).get() == expected.get()

    def test_folder_zip_and_single_files(self, tmp_path):
        folder = harmless(tmp_path / "bundle")
        shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "bundle")
        paths = [folder, tmp_path / "packed.zip", *folder.glob("models/*"), folder / "configs" / "inference.yaml"]
        for path in paths:
            assert verify(path).findings == []
        assert verify(folder).sha256 == verify(tmp_path / "packed.zip").sha256

    def test_recorded_hashes_are_compared(self, tmp_path):
        folder = harmless(tmp_path)
        found = verify(folder)
        (folder / "SHA256SUMS").write_text("".join(f"{sha}  {name}\n" for name, sha in found.sha256.items()))
        assert verify(folder).clean and verify(folder).recorded.keys() == found.sha256.keys()
        (folder / "docs" / "README.md").write_text("changed\n")
        (problem,) = verify(folder).findings
        assert problem.file == "docs/README.md" and "recorded" in problem.problem
        (folder / "models" / "more.safetensors").write_bytes((folder / "models" / "model.safetensors").read_bytes())
        assert any("is not listed" in str(each) for each in verify(folder).findings)

    def test_everything_on_the_list_exists(self):
        locator = ComponentLocator()
        for name in TARGETS:
            module = locator.get_component_module_name(name)
            full = name if module is None else f"{module if isinstance(module, str) else module[0]}.{name}"
            assert callable(instantiate(full, "callable")), name
        for name in CALLS:
            assert callable(instantiate(name, "callable")), name
        for name in VALUES:
            assert locate(name) is not None, name


class TestExpressions:
    @pytest.mark.parametrize(
        "text",
        ["$@a", "$@a + 1", "$@a * 3 / 2 - 1", "$[2 * n for n in @b]", "$@c['k']", "$-@a if @a > 1 else None",
         "$monai.utils.set_determinism(seed=@a)", "$@a + '/x'", "$len(@b)", "$not @a or @b[0] == 1"],
    )  # fmt: skip
    def test_arithmetic_references_and_known_calls_pass(self, text, tmp_path):
        given = text.replace("@a", "@s") if "'/x'" in text else text
        path = bundle(tmp_path, f'a: 2\ns: models\nb: [1, 2]\nc: {{k: 1}}\nrun: "{given}"\n')
        assert verify(path).findings == []

    def test_a_macro_within_the_file_passes(self, tmp_path):
        path = bundle(tmp_path, "a: {_target_: Identityd, keys: image}\nrun: '%a'\n")
        assert verify(path).findings == []


class TestTrust:
    TEXT = "landmarks: \"$__import__('os').sep\"\n"

    def test_only_by_the_hash_of_this_very_content(self, tmp_path, caplog):
        path = tmp_path / "inference.yaml"
        path.write_text(self.TEXT)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(ConfigurationError, match=sha256):
            open_config(path)
        assert open_config(path, [sha256]).get_parsed_content("landmarks") == "/"
        assert sha256 in caplog.text and str(path) in caplog.text
        path.write_text(self.TEXT + "more: 1\n")
        with pytest.raises(ConfigurationError, match="not opened"):
            open_config(path, [sha256])
        with pytest.raises(ConfigurationError, match="no SHA-256"):
            open_config(path, ["yes"])

    def test_predict_refuses_before_anything_runs(self, tmp_path, capsys, no_program):
        canary = tmp_path / "canary"
        text = f"landmarks: \"$open('{canary}', 'w')\"\n"
        folder = bundle(tmp_path / "bundle", text)
        film = tmp_path / "film.png"
        film.write_bytes(b"")
        assert main(["predict", str(film), "--bundle", str(folder), "--out", str(tmp_path / "out")]) == 1
        assert "not opened" in capsys.readouterr().err and not canary.exists()

    def test_weights_must_be_those_of_their_card(self, tmp_path):
        network = torch.nn.Linear(2, 3)
        save_file(network.state_dict(), tmp_path / "model.safetensors")
        card = {"sha256": file_sha256(tmp_path / "model.safetensors")}
        (tmp_path / "model.json").write_text(json.dumps(card))
        TrainedWeights(network, tmp_path / "model.safetensors")()
        changed = {name: tensor + 1 for name, tensor in load_file(tmp_path / "model.safetensors").items()}
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match="not the weights that were trained here"):
            TrainedWeights(network, tmp_path / "model.safetensors")()


class TestCommand:
    def test_clean_prints_hashes(self, tmp_path, capsys):
        assert main(["verify", str(harmless(tmp_path))]) == 0
        out = capsys.readouterr().out
        assert "clean" in out and file_sha256(tmp_path / "models" / "model.safetensors") in out

    def test_refused_prints_one_line_each(self, tmp_path, capsys):
        folder = KINDS["_target_: os.system"].build(tmp_path / "bundle", tmp_path / "canary")
        assert main(["verify", str(folder), "--json", str(tmp_path / "found.json")]) == 1
        lines = capsys.readouterr().out.strip().splitlines()
        assert len(lines) == 1 + 1  # the component, and the sum
        assert "configs/inference.yaml" in lines[0] and "run::_target_" in lines[0] and "os.system" in lines[0]
        facts = json.loads((tmp_path / "found.json").read_text())
        assert facts["clean"] is False and facts["findings"][0]["field"] == "run::_target_"

    def test_nothing_there(self, tmp_path, capsys):
        assert main(["verify", str(tmp_path / "absent")]) == 1
        assert "nothing is here" in capsys.readouterr().err
