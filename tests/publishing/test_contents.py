"""What of a run folder is published."""

from tests.publishing.runs import adapter_run, weights, write_run


def test_a_folder_whose_loaders_would_be_misled_is_not_published(push, tmp_path):
    both = write_run(tmp_path / "both")
    (both / "adapter_model.safetensors").write_bytes(weights(1.0))
    assert "an adapter beside model.safetensors" in push(both, "alice/misled")["error"]
    bare = write_run(tmp_path / "bare")
    (bare / "config.json").unlink()
    assert "without its config.json" in push(bare, "alice/misled")["error"]


def test_a_link_is_not_followed(push, tmp_path):
    folder = write_run(tmp_path / "run")
    (tmp_path / "elsewhere").write_text("private")
    (folder / "vocab.txt").symlink_to(tmp_path / "elsewhere")
    assert "vocab.txt is a link" in push(folder, "alice/link")["error"]


def test_no_link_in_a_base_is_followed(hub, push, tmp_path):
    base = write_run(tmp_path / "base")
    (base / "run.json").unlink()  # a checkpoint and no run folder
    (tmp_path / "elsewhere").write_text("private")
    (base / "vocab.txt").symlink_to(tmp_path / "elsewhere")
    folder = adapter_run(tmp_path / "run", base, "local")
    answer = push(folder, "alice/linked", push_base="alice/linked-base", license="apache-2.0")
    assert "vocab.txt is a link" in answer["error"] and ("model", "alice/linked-base") not in hub.repos
