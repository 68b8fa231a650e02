"""The base on the command line: shown, verified, another one used in its place."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from cli_runner import call, loaded

from hydra_edge.bundle import load_bundle
from hydra_edge.bundle.manifest import compute_base_id
from hydra_edge.config import find_paths, save_setting
from hydra_edge.features import FEATURE_VERSION


def test_bundle_show_and_verify_name_the_same_base():
    shown = loaded("bundle", "show", "--json")

    assert loaded("bundle", "verify", "--json")["base_id"] == shown["base_id"]
    assert shown["size_bytes"] <= 25 * 1024 * 1024
    assert shown["base_id"] in call("bundle", "show").stdout


def test_bundle_show_for_people_is_no_python():
    shown = call("bundle", "show")

    assert not set("{}[]'") & set(shown.stdout)
    assert "  recipe = decay 0.01, " in shown.stdout
    assert "  adapter = commit_subject, " in shown.stdout  # what is in each is for --json
    assert "--json" in shown.stderr


def test_base_of_the_settings_that_is_gone_says_how_to_go_back_to_the_shipped_one(tmp_path):
    save_setting(find_paths(), "bundle", str(tmp_path / "gone"))
    for found in ("found nothing", "manifest.json is missing"):
        refused = call("bundle", "show")
        assert refused.exit_code == 1
        assert found in refused.stderr
        assert "hydra-edge bundle use default" in refused.stderr
        assert "einstall" not in refused.stderr
        (tmp_path / "gone").mkdir(exist_ok=True)


def test_shipped_base_without_its_manifest_is_to_be_installed_again(tmp_path, monkeypatch):
    monkeypatch.setattr("hydra_edge.bundle.manifest.SHIPPED", tmp_path)
    assert "Reinstall hydra-edge." in call("bundle", "verify", str(tmp_path)).stderr


def test_bundle_verify_no_base_is_exit_1(tmp_path):
    result = call("bundle", "verify", str(tmp_path))

    assert result.exit_code == 1
    assert "manifest.json is missing" in result.stderr


def test_bundle_use_takes_a_sound_base_and_refuses_a_broken_one(tmp_path):
    shipped = Path(loaded("bundle", "show", "--json")["path"])
    mine = tmp_path / "mine"
    shutil.copytree(shipped, mine)
    assert call("bundle", "use", str(mine)).exit_code == 0
    assert loaded("bundle", "show", "--json")["path"] == str(mine)
    broken = tmp_path / "broken"
    shutil.copytree(shipped, broken)
    (broken / "tokenizer.json").write_text("{}")
    refused = call("bundle", "use", str(broken))
    assert refused.exit_code == 1
    assert "tokenizer.json" in refused.stderr
    assert loaded("bundle", "show", "--json")["path"] == str(mine)
    assert call("bundle", "use", "default").exit_code == 0
    assert loaded("bundle", "show", "--json")["path"] == str(shipped)


def test_bundle_use_and_doctor_refuse_a_base_made_for_other_features(tmp_path):
    shipped = load_bundle(None)
    old = tmp_path / "old"
    shutil.copytree(shipped.path, old)
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["feature_version"] = FEATURE_VERSION - 1
    of = replace(shipped.manifest, feature_version=FEATURE_VERSION - 1)
    manifest["base_id"] = compute_base_id(
        format_version=of.format_version, feature_version=of.feature_version, dim=of.dim,
        pooling=of.pooling, max_tokens=of.max_tokens, features=of.features, files=of.files,
        closed_sets=of.closed_sets,
    )  # fmt: skip
    (old / "manifest.json").write_text(json.dumps(manifest))

    for command in ("use", "verify"):
        refused = call("bundle", command, str(old))
        assert refused.exit_code == 1
        assert "hydra-edge bundle use default" in refused.stderr
    assert loaded("bundle", "show", "--json")["path"] == str(shipped.path)

    save_setting(find_paths(), "bundle", str(old))  # as it stands after an upgrade
    found = {f["name"]: f for f in json.loads(call("doctor", "--json").stdout)["findings"]}
    assert found["base"]["state"] == "broken"
    assert call("bundle", "use", "default").exit_code == 0
    assert loaded("bundle", "show", "--json")["path"] == str(shipped.path)
