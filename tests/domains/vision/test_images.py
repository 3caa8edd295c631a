import os
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from molhpft.domains.vision import images
from molhpft.domains.vision.images import open_files, pictures, read_by_class


def png(colour=(0, 0, 0), size=(8, 8), mode="RGB", kind="PNG"):
    file = BytesIO()
    Image.new(mode, size, colour).save(file, kind)
    return file.getvalue()


TREE = {
    "train/cat/1.png": png((10, 0, 0)),
    "train/cat/2.jpg": png((20, 0, 0), kind="JPEG"),
    "train/dog/1.png": png((30, 0, 0)),
    "test/dog/1.PNG": png((40, 0, 0)),
    "val/cat/1.png": png((50, 0, 0)),
    "val/cat/.1.png": b"hidden",
    "__MACOSX/val/cat/1.png": b"hidden",
    "notes.txt": b"not an image",
}


def write(path, tree, *, zipped):
    if zipped:
        path = path.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in tree.items():
                archive.writestr(f"set/{name}", data)
        return path
    for name, data in tree.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


everywhere = pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])


def taken(source):
    return source.take(torch.arange(len(source.targets)))


@everywhere
def test_splits_and_classes_are_read_off_the_folders(zipped, tmp_path):
    found = read_by_class(write(tmp_path / "set", TREE, zipped=zipped), size=8)
    assert set(found) == {"train", "valid", "test"}
    assert found["train"].targets.tolist() == [0, 0, 1]
    assert found["test"].targets.tolist() == [1]
    assert found["test"].classes == ("cat", "dog")
    reds = taken(found["train"]).pixels[:, 0, 4, 4].tolist()
    assert reds == [10, pytest.approx(20, abs=2), 30]


@everywhere
def test_classes_alone_are_one_part_of_everything(zipped, tmp_path):
    tree = {"b/1.png": png((1, 0, 0)), "a/2.png": png((2, 0, 0)), "a/1.png": png((3, 0, 0))}
    found = read_by_class(write(tmp_path / "set", tree, zipped=zipped), size=8)
    assert list(found) == ["all"]
    assert found["all"].targets.tolist() == [0, 0, 1]
    assert taken(found["all"]).pixels[:, 0, 0, 0].tolist() == [3, 2, 1]


def test_images_beside_the_splits_are_refused(tmp_path):
    path = write(tmp_path / "set", {**TREE, "other/cat/1.png": png()}, zipped=False)
    with pytest.raises(ValueError, match=r"in a split's folder; other/cat/1\.png does not"):
        read_by_class(path, size=8)


@everywhere
def test_a_class_is_its_top_folder_however_deep_an_image_lies(zipped, tmp_path):
    tree = {
        f"train/{label}/{year}/{k}.png": png()
        for label, year, k in [("cat", 2021, 0), ("cat", 2022, 0), ("dog", 2021, 0)]
    }
    for drop in ("", "train/"):
        bare = {name.removeprefix(drop): data for name, data in tree.items()}
        (source,) = read_by_class(
            write(tmp_path / f"at{drop}", bare, zipped=zipped), size=8
        ).values()
        assert source.classes == ("cat", "dog")
        assert source.targets.tolist() == [0, 0, 1]


def test_a_folder_around_everything_is_no_class(tmp_path):
    tree = {f"pets/{label}/1.png": png() for label in ("cat", "dog")}
    path = write(tmp_path / "set", tree, zipped=False)
    with pytest.raises(ValueError, match="lie in the folder pets, which would be the only class"):
        read_by_class(path, size=8)
    assert read_by_class(path / "pets", size=8)["all"].classes == ("cat", "dog")


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "WEBP", "GIF", "PPM"])
def test_images_of_other_kinds_are_read(kind, tmp_path):
    tree = {"a/1.png": png(), f"b/1.{kind}": png((200, 200, 200), kind=kind)}
    source = read_by_class(write(tmp_path / "set", tree, zipped=False), size=8)["all"]
    assert source.targets.tolist() == [0, 1]
    assert taken(source).pixels[1, 0, 4, 4] == 200


def test_a_class_whose_files_are_no_images_is_refused_not_dropped(tmp_path):
    tree = {"a/1.png": png(), "b/1.heic": b"1", "b/2.heic": b"2"}
    with pytest.raises(
        ValueError, match=r"b has none, only files such as b/1\.heic; an image ends"
    ):
        read_by_class(write(tmp_path / "set", tree, zipped=False), size=8)


@pytest.mark.parametrize("odd", ["a/notes.doc", "stray.png", "annotations/labels.csv"])
def test_files_that_are_left_out_are_said(odd, tmp_path, caplog):
    tree = {"a/1.png": png(), "b/1.png": png(), odd: png()}
    source = read_by_class(write(tmp_path / "set", tree, zipped=False), size=8)["all"]
    assert source.targets.tolist() == [0, 1]
    assert "left out, as they are no images by their ending or lie in no class's" in caplog.text
    assert odd in caplog.text


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind, tmp_path):
    ramp = np.array([[0, 257 * 10], [257 * 100, 65535]], np.uint16)
    file = BytesIO()
    Image.fromarray(ramp).save(file, kind)
    path = write(tmp_path / "set", {f"a/1.{kind}": file.getvalue()}, zipped=False)
    pixels = taken(read_by_class(path, size=2)["all"]).pixels[0]
    assert pixels.tolist() == [[[0, 10], [100, 255]]] * 3


@pytest.mark.parametrize("values", [np.int32, np.float32])
def test_thirty_two_bits_are_refused(values, tmp_path):
    file = BytesIO()
    Image.fromarray(np.full((4, 4), 70_000, values)).save(file, "TIFF")
    path = write(tmp_path / "set", {"a/1.tif": file.getvalue()}, zipped=False)
    with pytest.raises(ValueError, match=r"a/1\.tif in .*32 bits a value .*; save it with 8 or 16"):
        taken(read_by_class(path, size=4)["all"])


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path):
    lit_above = np.zeros((8, 8, 3), np.uint8)
    lit_above[:4] = 255
    camera = Image.fromarray(lit_above).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    file = BytesIO()
    camera.save(file, "PNG", exif=exif)
    path = write(tmp_path / "set", {"a/1.png": file.getvalue()}, zipped=False)
    pixels = taken(read_by_class(path, size=8)["all"]).pixels[0]
    assert torch.equal(pixels, torch.from_numpy(lit_above).permute(2, 0, 1))


def test_a_folder_without_images_is_refused(tmp_path):
    path = write(tmp_path / "set", {"a/notes.txt": b"", "image.png": png()}, zipped=False)
    with pytest.raises(ValueError, match=r"suffix .*\.jpg, .*; it has none among 2 files"):
        read_by_class(path, size=8)


def test_what_is_neither_folder_nor_zip_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a folder or a zip file"):
        open_files(tmp_path / "nothing")
    (tmp_path / "file").write_text("no zip")
    with pytest.raises(ValueError, match="should be a folder or a zip file of images; it is neith"):
        open_files(tmp_path / "file")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_any_mode_becomes_three_channels(mode, tmp_path):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    tree = {"a/1.png": png(None, mode=mode, kind=kind)}
    found = read_by_class(write(tmp_path / "set", tree, zipped=False), size=8)
    assert taken(found["all"]).pixels.shape == (1, 3, 8, 8)


def test_the_centre_square_is_scaled(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 8:22] = 200  # scaling looks a little beyond the square
    file = BytesIO()
    Image.fromarray(wide).save(file, "PNG")
    path = write(tmp_path / "set", {"a/1.png": file.getvalue()}, zipped=False)
    pixels = taken(read_by_class(path, size=5)["all"]).pixels
    assert torch.equal(pixels, torch.full((1, 3, 5, 5), 200, dtype=torch.uint8))


def test_images_of_the_right_size_come_back_to_the_bit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    path = write(tmp_path / "set", {"a/1.png": file.getvalue()}, zipped=False)
    pixels = taken(read_by_class(path, size=32)["all"]).pixels
    assert torch.equal(pixels[0], torch.from_numpy(noise).permute(2, 0, 1))


@pytest.mark.parametrize("bad", [b"", b"junk", png()[:30], png(size=(64, 64), kind="JPEG")[:200]])
@everywhere
def test_a_broken_image_is_named(bad, zipped, tmp_path):
    path = write(tmp_path / "set", {"a/1.png": png(), "a/2.png": bad}, zipped=zipped)
    with pytest.raises(ValueError, match=r"a/2\.png in .* should be an image that Pillow reads"):
        taken(read_by_class(path, size=8)["all"])


def test_a_damaged_entry_of_a_zip_is_named(tmp_path):
    path = write(tmp_path / "set", {"a/1.png": b"x" * 1000}, zipped=True)
    path.write_bytes(path.read_bytes().replace(b"xxxx", b"yyyy", 1))
    with pytest.raises(ValueError, match="is a damaged or protected zip file: Bad CRC-32"):
        taken(read_by_class(path, size=8)["all"])


def test_a_zip_with_a_broken_directory_is_refused(tmp_path):
    path = write(tmp_path / "set", {"a/1.png": png()}, zipped=True)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x09\x09"))
    with pytest.raises(ValueError, match="is a damaged or protected zip file: Bad magic number"):
        open_files(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [([], "list of images; it is empty"), ([("a.png", 2)], "should lie from 0 to 1; 1 do not")],
)
def test_a_list_needs_images_of_known_classes(entries, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pictures(open_files(tmp_path), entries, classes=["a", "b"], size=8)


@everywhere
def test_images_are_decoded_once(zipped, tmp_path, monkeypatch):
    path = write(tmp_path / "set", TREE, zipped=zipped)
    first = taken(read_by_class(path, size=8)["train"])
    monkeypatch.setattr(images, "_decode", None)
    assert torch.equal(taken(read_by_class(path, size=8)["train"]).pixels, first.pixels)


@everywhere
def test_an_image_that_changed_is_decoded_anew(zipped, tmp_path):
    path = write(tmp_path / "set", TREE, zipped=zipped)
    taken(read_by_class(path, size=8)["test"])
    write(tmp_path / "set", {**TREE, "test/dog/1.PNG": png((99, 0, 0))}, zipped=zipped)
    if not zipped:
        os.utime(path / "test/dog/1.PNG", ns=(1, 1))
    assert taken(read_by_class(path, size=8)["test"]).pixels[0, 0, 0, 0] == 99


def test_only_the_rows_that_are_taken_are_read(tmp_path):
    path = write(tmp_path / "set", {"a/1.png": png(), "a/2.png": b"broken"}, zipped=False)
    source = read_by_class(path, size=8)["all"]
    assert source.take(torch.tensor([0])).pixels.shape == (1, 3, 8, 8)
