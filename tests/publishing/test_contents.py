"""What of a run folder is published."""

from tests.publishing.runs import weights, write_run


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
